package main

import (
	"crypto/rand"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// tracker is the change tracking of one disk. It keeps a hash per block for
// every instant it ever named; "changed since" is a comparison of two such
// arrays. So it sees writes of anybody, also of programs the lab does not
// know, and is exact by construction.
type tracker struct {
	uuid  string
	marks [][]uint64 // index is the epoch
}

func newTracker(flat string) (*tracker, error) {
	t := &tracker{uuid: trackingUUID()}
	return t, t.mark(flat)
}

// mark names the present content as a new instant.
func (t *tracker) mark(flat string) error {
	h, err := hashBlocks(flat)
	if err != nil {
		return fmt.Errorf("close a tracking epoch: %w", err)
	}
	t.marks = append(t.marks, h)
	return nil
}

func (t *tracker) changeID() string {
	return fmt.Sprintf("%s/%d", t.uuid, len(t.marks)-1)
}

// trackingUUID has the form vSphere shows in change ids.
func trackingUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails on supported systems
	p := make([]string, 16)
	for i, x := range b {
		p[i] = fmt.Sprintf("%02x", x)
	}
	return strings.Join(p[:8], " ") + "-" + strings.Join(p[8:], " ")
}

// epochOf resolves a change id; ok is false for an id of another life of
// the disk.
func (t *tracker) epochOf(changeID string) (epoch int, ok bool) {
	i := strings.LastIndex(changeID, "/")
	if i < 0 || changeID[:i] != t.uuid {
		return 0, false
	}
	n, err := strconv.Atoi(changeID[i+1:])
	if err != nil || n < 0 || n >= len(t.marks) {
		return 0, false
	}
	return n, true
}

func validChangeID(id string) bool {
	i := strings.LastIndex(id, "/")
	if i <= 0 {
		return false
	}
	_, err := strconv.ParseUint(id[i+1:], 10, 31)
	return err == nil
}

// changedSpans lists merged runs of blocks that differ, cut at capacity.
func changedSpans(old, now []uint64, capacity int64) []span {
	var out []span
	for i := range now {
		if i < len(old) && old[i] == now[i] {
			continue
		}
		off := int64(i) * blockSize
		n := min(int64(blockSize), capacity-off)
		if n <= 0 {
			break
		}
		if k := len(out) - 1; k >= 0 && out[k].off+out[k].length == off {
			out[k].length += n
		} else {
			out = append(out, span{off, n})
		}
	}
	return out
}

// roundSpans widens allocated spans to whole blocks and merges them.
func roundSpans(in []span, capacity int64) []span {
	var out []span
	for _, s := range in {
		from := s.off / blockSize * blockSize
		to := min((s.off+s.length+blockSize-1)/blockSize*blockSize, capacity)
		if k := len(out) - 1; k >= 0 && out[k].off+out[k].length >= from {
			out[k].length = max(out[k].off+out[k].length, to) - out[k].off
		} else {
			out = append(out, span{from, to - from})
		}
	}
	return out
}

// page cuts the answer the way vCenter does: at most limit extents, and a
// length that says how far the answer reaches.
func page(all []span, start, capacity int64, limit int) (areas []span, length int64) {
	for _, s := range all {
		end := s.off + s.length
		if end <= start {
			continue
		}
		from := max(s.off, start)
		if len(areas) == limit {
			last := areas[limit-1]
			return areas, last.off + last.length - start
		}
		areas = append(areas, span{from, end - from})
	}
	return slices.Clip(areas), capacity - start
}
