package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	systemID = "7300000000000000001"
	segment  = "000000010000000000000005"
	next     = "000000010000000000000006"
	later    = "000000010000000000000009"
)

func (w *world) fail(format string, args ...any) { panic(failure(fmt.Sprintf(format, args...))) }

func (w *world) must(err error) {
	if err != nil {
		w.fail("%v", err)
	}
}

func (w *world) equal(what string, got, want any) {
	if got != want {
		w.fail("%s: got %v, want %v", what, got, want)
	}
}

func (w *world) sameBytes(what string, got, want []byte) {
	if !bytes.Equal(got, want) {
		w.fail("%s: got %d bytes, want other %d bytes", what, len(got), len(want))
	}
}

// code checks the status code of a call that must fail.
func (w *world) code(what string, err error, want codes.Code) {
	if got := status.Code(err); err == nil || got != want {
		w.fail("%s: got %v (%v), want %v", what, got, err, want)
	}
}

const (
	pageBytes        = 8192
	shortHeaderBytes = 24
	longHeaderBytes  = 40
	recordHeadBytes  = 24
	pageMagic        = 0xD116 // PostgreSQL 17
	longHeaderFlag   = 2
	heapManager      = 10
)

// wal is the beginning of a segment of timeline 1 as PostgreSQL lays it out, because our server looks at what it stores:
// every page holds one record that fills it, with bodies that differ from seed to seed.
func wal(name string, segmentSize, size int, seed uint32) []byte {
	number, err := strconv.ParseUint(name[16:24], 16, 32)
	if err != nil {
		panic(err)
	}
	start := number * uint64(segmentSize)
	var content []byte
	state := seed*2654435761 + 1
	for at := start; len(content) < size; at += pageBytes {
		page := make([]byte, pageBytes)
		head := shortHeaderBytes
		binary.LittleEndian.PutUint16(page[0:], pageMagic)
		binary.LittleEndian.PutUint32(page[4:], 1)
		binary.LittleEndian.PutUint64(page[8:], at)
		if at == start {
			head = longHeaderBytes
			id, _ := strconv.ParseUint(systemID, 10, 64)
			binary.LittleEndian.PutUint16(page[2:], longHeaderFlag)
			binary.LittleEndian.PutUint64(page[24:], id)
			binary.LittleEndian.PutUint32(page[32:], uint32(segmentSize))
			binary.LittleEndian.PutUint32(page[36:], pageBytes)
		}
		record := page[head:]
		previous := at - pageBytes + shortHeaderBytes
		if at == start+pageBytes {
			previous = start + longHeaderBytes
		}
		binary.LittleEndian.PutUint32(record[0:], uint32(len(record)))
		binary.LittleEndian.PutUint64(record[8:], previous)
		record[17] = heapManager
		for i := recordHeadBytes; i < len(record); i++ {
			state = state*1664525 + 1013904223
			record[i] = byte(state >> 24)
		}
		table := crc32.MakeTable(crc32.Castagnoli)
		sum := crc32.Update(crc32.Checksum(record[recordHeadBytes:], table), table, record[:20])
		binary.LittleEndian.PutUint32(record[20:], sum)
		content = append(content, page...)
	}
	return content[:size]
}

// starts makes the first call of every client, which tells the server whose WAL it will be.
func (w *world) starts(c *client) {
	w.equal("first answer", w.requestStart(c, segment), segment)
}

func (w *world) requestStart(c *client, proposal string) string {
	answer, err := c.unary(w.ctx, "RequestWALStart", start(c.cluster, proposal))
	w.must(err)
	return get(answer, "wal_name").String()
}

func start(cluster, proposal string) fields {
	return fields{"cluster_name": cluster, "system_id": systemID, "current_wal_name": proposal}
}

func (w *world) getFile(c *client, name string) *file {
	found, err := c.download(w.ctx, name)
	w.must(err)
	return found
}

// blocks are the messages of an upload as an existing client cuts it.
func blocks(cluster, name string, content []byte, blockBytes, segmentSize int) []fields {
	var messages []fields
	for at := 0; at < len(content); at += blockBytes {
		messages = append(messages, fields{
			"cluster_name": cluster,
			"wal_name":     name,
			"wal_block":    content[at:min(at+blockBytes, len(content))],
			"segment_size": uint64(segmentSize),
		})
	}
	return messages
}

// store uploads content that must be taken.
func (w *world) store(c *client, name string, content []byte, segmentSize int) {
	written, err := c.upload(w.ctx, blocks(c.cluster, name, content, 256<<10, segmentSize)...)
	w.must(err)
	w.equal("written_size", written, uint64(len(content)))
}

// until tries again: what another connection has done shows at the server a moment later.
func (w *world) until(what string, done func(ctx context.Context) (bool, error)) {
	var last error
	for {
		ok, err := done(w.ctx)
		if ok {
			return
		}
		last = err
		select {
		case <-w.ctx.Done():
			w.fail("%s: %v", what, last)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
