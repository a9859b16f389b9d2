package main

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/dynamicpb"
)

var callCases = []test{
	{"Get ends with one empty block, and every message has the size", func(w *world) {
		c := w.client(w.name)
		w.starts(c)
		content := wal(segment, 16*mib, 16*mib, 1)
		w.store(c, segment, content, 16*mib)
		w.store(c, next, wal(next, 16*mib, 1, 1), 16*mib)
		for name, length := range map[string]int{segment: 16 * mib, next + ".partial": 1} {
			found := w.getFile(c, name)
			w.sameBytes(name, found.content, wal(name, 16*mib, length, 1))
			w.equal("segment_size", found.segmentSize, uint64(16*mib))
			for index, size := range found.blocks {
				last := index == len(found.blocks)-1
				if last != (size == 0) || size > 8*mib {
					w.fail("%s: message %d of %d has %d bytes", name, index+1, len(found.blocks), size)
				}
			}
		}
	}},
	{"Get says NotFound for what is absent and InvalidArgument for what is no name", func(w *world) {
		c := w.client(w.name)
		_, err := c.download(w.ctx, segment)
		w.code("unknown cluster", err, codes.NotFound)
		w.starts(c)
		for _, name := range []string{segment, segment + ".partial", "00000009.history"} {
			_, err = c.download(w.ctx, name)
			w.code(name, err, codes.NotFound)
		}
		for _, name := range []string{"", "..", "metadata", "../other/" + segment, segment + ".tmp"} {
			_, err = c.download(w.ctx, name)
			w.code(name, err, codes.InvalidArgument)
		}
	}},
	{"Get that is left early leaves the server well", func(w *world) {
		c := w.client(w.name)
		w.starts(c)
		w.store(c, segment, wal(segment, 16*mib, 16*mib, 1), 16*mib)
		for range 20 {
			ctx, cancel := context.WithTimeout(w.ctx, 2*time.Millisecond)
			_, _ = c.download(ctx, segment)
			cancel()
		}
		w.equal("length", len(w.getFile(c, segment).content), 16*mib)
	}},
	{"GetMetadata tells system id and gaps", func(w *world) {
		c := w.client(w.name)
		_, err := c.unary(w.ctx, "GetMetadata", fields{"cluster_name": c.cluster})
		w.code("unknown cluster", err, codes.NotFound)
		w.starts(c)
		answer, err := c.unary(w.ctx, "GetMetadata", fields{"cluster_name": c.cluster})
		w.must(err)
		w.equal("system_id", get(answer, "system_id").String(), systemID)
		w.equal("gaps", get(answer, "gaps").List().Len(), 0)
	}},
	{"RequestWALStart answers the proposal, then where the archive continues", func(w *world) {
		c := w.client(w.name)
		w.equal("first", w.requestStart(c, segment), segment)
		w.equal("nothing stored yet", w.requestStart(c, later), later)
		w.store(c, segment, wal(segment, mib, mib, 1), mib)
		// Ours: existing servers name the last complete segment, which PostgreSQL may have recycled long ago.
		w.equal("after a whole segment", w.requestStart(c, later), next)
		w.store(c, next, wal(next, mib, 1000, 1), mib)
		// Ours: without ".partial", which existing servers append and existing clients strip.
		w.equal("after a partial", w.requestStart(c, later), next)
	}},
	{"RequestWALStart refuses another system and bad values", func(w *world) {
		c := w.client(w.name)
		w.starts(c)
		other := start(c.cluster, segment)
		other["system_id"] = "7300000000000000002"
		_, err := c.unary(w.ctx, "RequestWALStart", other)
		// Ours: existing servers say InvalidArgument, which reads as if another spelling would help.
		w.code("another system id", err, codes.Aborted)
		for field, values := range map[string][]string{
			"system_id":        {"", "0", "-1", "x", "99999999999999999999"},
			"current_wal_name": {"", "x", "00000002.history", segment + ".00000028.backup", segment + ".partial"},
			"cluster_name":     {"", ".."},
		} {
			for _, value := range values {
				request := start(c.cluster, segment)
				request[field] = value
				_, err := c.unary(w.ctx, "RequestWALStart", request)
				w.code(fmt.Sprintf("%s %q", field, value), err, codes.InvalidArgument)
			}
		}
		answer, err := c.unary(w.ctx, "GetMetadata", fields{"cluster_name": c.cluster})
		w.must(err)
		w.equal("system_id", get(answer, "system_id").String(), systemID)
	}},
	{"ResetWALStream records a gap from which the stream continues", func(w *world) {
		c := w.client(w.name)
		w.starts(c)
		_, err := c.unary(w.ctx, "ResetWALStream", start(c.cluster, later))
		w.code("empty archive", err, codes.InvalidArgument)
		w.store(c, segment, wal(segment, mib, mib, 1), mib)
		_, err = c.unary(w.ctx, "ResetWALStream", start(c.cluster, segment))
		w.code("too old", err, codes.InvalidArgument)
		before := time.Now().Add(-time.Second)
		answer, err := c.unary(w.ctx, "ResetWALStream", start(c.cluster, later))
		w.must(err)
		w.equal("wal_name", get(answer, "wal_name").String(), later)
		w.equal("next start", w.requestStart(c, segment), later)
		metadata, err := c.unary(w.ctx, "GetMetadata", fields{"cluster_name": c.cluster})
		w.must(err)
		gaps := get(metadata, "gaps").List()
		w.equal("gaps", gaps.Len(), 1)
		gap := gaps.Get(0).Message().Interface().(*dynamicpb.Message)
		w.equal("start", get(gap, "start").String(), segment)
		w.equal("end", get(gap, "end").String(), later)
		ts := get(gap, "ts").Message().Interface().(*dynamicpb.Message)
		recorded := time.Unix(get(ts, "seconds").Int(), get(ts, "nanos").Int())
		if recorded.Before(before) || recorded.After(time.Now().Add(time.Second)) {
			w.fail("ts: got %v, want now", recorded)
		}
		other := start(c.cluster, later)
		other["system_id"] = "7300000000000000002"
		_, err = c.unary(w.ctx, "ResetWALStream", other)
		w.code("another system id", err, codes.Aborted)
		w.store(c, later, wal(later, mib, mib, 2), mib)
		metadata, err = c.unary(w.ctx, "GetMetadata", fields{"cluster_name": c.cluster})
		w.must(err)
		w.equal("gaps after the reset was used", get(metadata, "gaps").List().Len(), 1)
	}},
	{"CloseBackup lists the segments that are missing", func(w *world) {
		c := w.client(w.name)
		request := func(first, last string) fields {
			return fields{
				"cluster_name": c.cluster, "backup_name": "b-1", "timeline": int32(1),
				"start_wal": first, "end_wal": last, "segment_size": uint64(mib),
			}
		}
		_, err := c.unary(w.ctx, "CloseBackup", request(segment, later))
		w.code("unknown cluster", err, codes.NotFound)
		w.starts(c)
		w.store(c, segment, wal(segment, mib, mib, 1), mib)
		w.store(c, next, wal(next, mib, 1000, 1), mib)
		missing := func(request fields) []string {
			answer, err := c.unary(w.ctx, "CloseBackup", request)
			w.must(err)
			w.equal("tier2_schedule", get(answer, "tier2_schedule").Bool(), false)
			var names []string
			list := get(answer, "missing_wal_files").List()
			for index := range list.Len() {
				names = append(names, list.Get(index).String())
			}
			return names
		}
		w.equal("missing", fmt.Sprint(missing(request(segment, segment))), "[]")
		// A partial is missing until it is complete.
		want := "[000000010000000000000006 000000010000000000000007]"
		tier2 := request(segment, "000000010000000000000007")
		tier2["send_to_tier2"] = true
		tier2["tier2_retention_policy"] = `{"keepLatest":3}`
		w.equal("missing", fmt.Sprint(missing(tier2)), want)
		for field, value := range map[string]any{
			"segment_size": uint64(0), // existing servers never answer this one
			"start_wal":    "x",
			"end_wal":      "00000002.history",
			"timeline":     int32(0),
			"cluster_name": "..",
		} {
			broken := request(segment, later)
			broken[field] = value
			_, err := c.unary(w.ctx, "CloseBackup", broken)
			w.code(fmt.Sprintf("%s %v", field, value), err, codes.InvalidArgument)
		}
		_, err = c.unary(w.ctx, "CloseBackup", request(later, segment))
		w.code("end before start (ours)", err, codes.InvalidArgument)
	}},
	{"SetFirstRequiredWAL is not served (ours: retention belongs to the server)", func(w *world) {
		c := w.client(w.name)
		w.starts(c)
		request := fields{"cluster_name": c.cluster, "first_required_wal": later}
		_, err := c.unary(w.ctx, "SetFirstRequiredWAL", request)
		w.code("SetFirstRequiredWAL", err, codes.Unimplemented)
	}},
	{"Another cluster's name is refused on every call (ours: existing servers do not look)", func(w *world) {
		c := w.client(w.name)
		w.starts(c)
		w.store(c, segment, wal(segment, mib, mib, 1), mib)
		thief := w.client(w.name + "-thief")
		thief.cluster = c.cluster
		calls := map[string]fields{
			"GetMetadata":     {"cluster_name": c.cluster},
			"RequestWALStart": start(c.cluster, segment),
			"ResetWALStream":  start(c.cluster, later),
			"CloseBackup": {
				"cluster_name": c.cluster, "timeline": int32(1), "start_wal": segment,
				"end_wal": segment, "segment_size": uint64(mib),
			},
		}
		for method, request := range calls {
			_, err := thief.unary(w.ctx, method, request)
			w.code(method, err, codes.PermissionDenied)
		}
		_, err := thief.download(w.ctx, segment)
		w.code("Get", err, codes.PermissionDenied)
		_, err = thief.upload(w.ctx, blocks(c.cluster, next, wal(segment, mib, 1000, 1), 1000, mib)...)
		w.code("Put", err, codes.PermissionDenied)
		// Not only the first message counts.
		w.starts(w.client(w.name + "-thief"))
		messages := blocks(w.name+"-thief", segment, wal(segment, mib, mib, 1), 500_000, mib)
		messages[1]["cluster_name"] = c.cluster
		_, err = thief.upload(w.ctx, messages...)
		w.code("Put, second message", err, codes.PermissionDenied)
	}},
	{"Clients without a certificate, or whose name says no cluster, get nowhere", func(w *world) {
		bare := w.connect(w.tls(""), w.name, messageBytesMax)
		_, err := bare.unary(w.ctx, "GetMetadata", fields{"cluster_name": w.name})
		w.code("no certificate", err, codes.Unavailable)
		for _, commonName := range []string{w.name, "klio@", "@" + w.name, "klio@..", "a@b@" + w.name} {
			nobody := w.connect(w.tls(commonName), w.name, messageBytesMax)
			_, err := nobody.unary(w.ctx, "GetMetadata", fields{"cluster_name": w.name})
			w.code(commonName, err, codes.PermissionDenied)
		}
	}},
}
