package main

import (
	"context"
	"fmt"

	"google.golang.org/grpc/codes"
)

var putCases = []test{
	{"Put takes a whole segment in blocks of any size", func(w *world) {
		for index, blockBytes := range []int{1000, 8192, 65_536, 262_144, 999_999, mib} {
			c := w.client(fmt.Sprintf("%s-%d", w.name, index))
			w.starts(c)
			content := wal(segment, mib, mib, uint32(index))
			written, err := c.upload(w.ctx, blocks(c.cluster, segment, content, blockBytes, mib)...)
			w.must(err)
			w.equal("written_size", written, uint64(mib))
			found := w.getFile(c, segment)
			w.sameBytes("content", found.content, content)
			_, err = c.download(w.ctx, segment+".partial")
			// Ours: a whole segment answers for its partial, which a reader may have been told of a moment ago.
			w.must(err)
		}
	}},
	{"Put takes blocks of 8 MiB", func(w *world) {
		c := w.client(w.name)
		w.starts(c)
		content := wal(segment, 16*mib, 16*mib, 1)
		written, err := c.upload(w.ctx, blocks(c.cluster, segment, content, 8*mib, 16*mib)...)
		w.must(err)
		w.equal("written_size", written, uint64(16*mib))
		w.sameBytes("content", w.getFile(c, segment).content, content)
	}},
	{"Put refuses messages above 8.5 MiB", func(w *world) {
		c := w.connect(w.tls("klio@"+w.name), w.name, 64*mib)
		w.starts(c)
		_, err := c.upload(w.ctx, blocks(c.cluster, segment, wal(segment, 16*mib, 9*mib, 1), 9*mib, 16*mib)...)
		w.code("message of 9 MiB", err, codes.ResourceExhausted)
		w.store(c, segment, wal(segment, 16*mib, 16*mib, 2), 16*mib)
	}},
	{"Put of fewer bytes leaves a partial, which a later Put completes", func(w *world) {
		c := w.client(w.name)
		w.starts(c)
		content := wal(segment, mib, mib, 1)
		w.store(c, segment, content[:600_000], mib)
		_, err := c.download(w.ctx, segment)
		w.code("a partial is no segment", err, codes.NotFound)
		found := w.getFile(c, segment+".partial")
		w.sameBytes("partial", found.content, content[:600_000])
		w.equal("segment_size", found.segmentSize, uint64(mib))
		// Ours: bytes that are stored stay. Existing servers truncate the partial first.
		w.store(c, segment, content[:1000], mib)
		w.sameBytes("partial", w.getFile(c, segment+".partial").content, content[:600_000])
		w.store(c, segment, content, mib)
		w.sameBytes("segment", w.getFile(c, segment).content, content)
	}},
	{"Put of the same content again is success", func(w *world) {
		c := w.client(w.name)
		w.starts(c)
		content := wal(segment, mib, mib, 1)
		for range 3 {
			w.store(c, segment, content, mib)
		}
		w.sameBytes("content", w.getFile(c, segment).content, content)
	}},
	{"Put of other content under a stored name is refused (ours: existing servers overwrite)", func(w *world) {
		c := w.client(w.name)
		w.starts(c)
		content := wal(segment, mib, mib, 1)
		w.store(c, segment, content, mib)
		_, err := c.upload(w.ctx, blocks(c.cluster, segment, wal(segment, mib, mib, 2), 65_536, mib)...)
		w.code("other segment", err, codes.Aborted)
		w.sameBytes("content", w.getFile(c, segment).content, content)
		partial := wal(next, mib, 100_000, 1)
		w.store(c, next, partial, mib)
		_, err = c.upload(w.ctx, blocks(c.cluster, next, wal(next, mib, mib, 2), 65_536, mib)...)
		w.code("other partial", err, codes.Aborted)
		w.sameBytes("partial", w.getFile(c, next+".partial").content, partial)
	}},
	{"Put without a message answers zero", func(w *world) {
		c := w.client(w.name)
		w.starts(c)
		written, err := c.upload(w.ctx)
		w.must(err)
		w.equal("written_size", written, uint64(0))
	}},
	{"Put takes tracing fields and send_to_tier2", func(w *world) {
		c := w.client(w.name)
		w.starts(c)
		content := wal(segment, mib, mib, 1)
		messages := blocks(c.cluster, segment, content, 256<<10, mib)
		for _, message := range messages {
			message["trace_id"] = "0af7651916cd43dd8448eb211c80319c"
			message["span_id"] = "b7ad6b7169203331"
			message["send_to_tier2"] = true
		}
		written, err := c.upload(w.ctx, messages...)
		w.must(err)
		w.equal("written_size", written, uint64(mib))
	}},
	{"Put takes history files that end in an empty message", func(w *world) {
		c := w.client(w.name)
		w.starts(c)
		var history []byte
		for timeline := 1; len(history) < 10_000; timeline++ {
			history = fmt.Appendf(history, "%d\t0/%X000060\tno recovery target specified\n", timeline, timeline)
		}
		messages := blocks(c.cluster, "00000FFF.history", history, 4096, len(history))
		messages = append(messages, fields{
			"cluster_name": c.cluster,
			"wal_name":     "00000FFF.history",
			"segment_size": uint64(len(history)),
		})
		for range 2 {
			written, err := c.upload(w.ctx, messages...)
			w.must(err)
			w.equal("written_size", written, uint64(len(history)))
		}
		found := w.getFile(c, "00000FFF.history")
		w.sameBytes("history", found.content, history)
		// Ours: a history that no recovery could read is not kept. Existing servers store any bytes.
		broken := []byte("2\tx\n")
		_, err := c.upload(w.ctx, blocks(c.cluster, "00000003.history", broken, 4096, len(broken))...)
		w.code("broken history", err, codes.DataLoss)
		w.equal("segment_size", found.segmentSize, uint64(len(history)))
	}},
	{"Put takes backup label files", func(w *world) {
		c := w.client(w.name)
		w.starts(c)
		name := segment + ".00000028.backup"
		content := []byte("START WAL LOCATION: 0/5000028\n")
		w.store(c, name, content, len(content))
		w.sameBytes("label", w.getFile(c, name).content, content)
	}},
	{"Put refuses bad names", func(w *world) {
		c := w.client(w.name)
		w.starts(c)
		names := []string{
			"", ".", "..", "x", segment[1:], segment + "0", "../" + segment, segment + "/x", segment + ".gz",
			"00000002.HISTORY", segment + ".0000002.backup", "G" + segment[1:], segment + ".partial",
			// Ours: upper case only. Existing servers would make a second file of the same segment.
			"00000001000000000000000a",
		}
		for _, name := range names {
			_, err := c.upload(w.ctx, blocks(c.cluster, name, wal(segment, mib, 1000, 1), 1000, mib)...)
			w.code(fmt.Sprintf("wal_name %q", name), err, codes.InvalidArgument)
		}
		// "." and ".." pass at existing servers; a name that is no name is refused before it is looked whose it is.
		for _, cluster := range []string{"", ".", "..", "a/b", "../x", "a b", "\u00e9"} {
			_, err := c.upload(w.ctx, blocks(cluster, segment, wal(segment, mib, 1000, 1), 1000, mib)...)
			w.code(fmt.Sprintf("cluster_name %q", cluster), err, codes.InvalidArgument)
		}
	}},
	{"Put refuses bad sizes", func(w *world) {
		c := w.client(w.name)
		w.starts(c)
		// Ours: only sizes that PostgreSQL has. Existing servers refuse zero alone.
		for _, size := range []int{0, 1, mib - 1, mib + 1, 2 << 30} {
			_, err := c.upload(w.ctx, blocks(c.cluster, segment, wal(segment, mib, 1000, 1), 1000, size)...)
			w.code(fmt.Sprintf("segment_size %d", size), err, codes.InvalidArgument)
		}
		_, err := c.upload(w.ctx, blocks(c.cluster, segment, wal(segment, mib, 1000, 1), 1000, -1)...)
		w.code("a size above 2^53 is no size (ours)", err, codes.Internal)
		_, err = c.upload(w.ctx, blocks(c.cluster, segment, wal(segment, mib, mib+1, 1), 65_536, mib)...)
		w.code("more bytes than the segment has", err, codes.InvalidArgument)
		w.store(c, next, wal(next, mib, mib, 1), mib)
		_, err = c.upload(w.ctx, blocks(c.cluster, later, wal(segment, mib, 1000, 1), 1000, 2*mib)...)
		w.code("another size than the cluster's (ours)", err, codes.Aborted)
	}},
	{"Put refuses messages that do not belong together", func(w *world) {
		c := w.client(w.name)
		w.starts(c)
		content := wal(segment, mib, mib, 1)
		for field, value := range map[string]any{
			"wal_name":     next,
			"segment_size": uint64(2 * mib),
			"cluster_name": "",
		} {
			messages := blocks(c.cluster, segment, content, 500_000, mib)
			messages[1][field] = value
			_, err := c.upload(w.ctx, messages...)
			w.code("changed "+field, err, codes.InvalidArgument)
		}
		_, err := c.download(w.ctx, segment)
		w.code("nothing became a segment", err, codes.NotFound)
	}},
	{"Put before RequestWALStart is refused (ours: existing servers store it)", func(w *world) {
		c := w.client(w.name)
		_, err := c.upload(w.ctx, blocks(c.cluster, segment, wal(segment, mib, mib, 1), 65_536, mib)...)
		w.code("a cluster without system id", err, codes.NotFound)
	}},
	{"Put that is cut in the middle keeps what arrived", func(w *world) {
		reader := w.client(w.name)
		w.starts(reader)
		for index, cut := range []string{"cancelled call", "closed connection"} {
			name := []string{segment, next}[index]
			content := wal(name, mib, mib, 1)
			c := w.client(w.name)
			ctx, cancel := context.WithCancel(w.ctx)
			defer cancel()
			upload, err := c.openPut(ctx)
			w.must(err)
			for _, message := range blocks(c.cluster, name, content[:700_000], 100_000, mib) {
				w.must(upload.send(message))
			}
			stored := func(ctx context.Context) (bool, error) {
				found, err := reader.download(ctx, name+".partial")
				return err == nil && len(found.content) == 700_000, err
			}
			w.until("blocks are readable while the upload runs", stored)
			if index == 0 {
				cancel()
			} else {
				w.must(c.conn.Close())
			}
			w.until("the place of the writer is free after a "+cut, func(ctx context.Context) (bool, error) {
				_, err := reader.upload(ctx, blocks(reader.cluster, name, content[:1], 1, mib)...)
				return err == nil, err
			})
			w.sameBytes("partial", w.getFile(reader, name+".partial").content, content[:700_000])
			w.store(reader, name, content, mib)
			w.sameBytes("segment", w.getFile(reader, name).content, content)
		}
	}},
	{"Put beside another one is refused (ours: existing servers mix the two)", func(w *world) {
		c := w.client(w.name)
		w.starts(c)
		content := wal(segment, mib, mib, 1)
		upload, err := c.openPut(w.ctx)
		w.must(err)
		messages := blocks(c.cluster, segment, content, 500_000, mib)
		w.must(upload.send(messages[0]))
		w.until("the first upload has begun", func(ctx context.Context) (bool, error) {
			_, err := c.download(ctx, segment+".partial")
			return err == nil, err
		})
		_, err = c.upload(w.ctx, messages...)
		w.code("second writer", err, codes.Aborted)
		w.must(upload.send(messages[1]))
		w.must(upload.send(messages[2]))
		written, err := upload.finish()
		w.must(err)
		w.equal("written_size", written, uint64(mib))
		w.sameBytes("segment", w.getFile(c, segment).content, content)
	}},
}
