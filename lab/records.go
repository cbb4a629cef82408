package main

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// powerRecord proves what the disks held when a VM's power changed.
type powerRecord struct {
	Seq    int          `json:"seq"`
	Site   string       `json:"site"`
	VM     string       `json:"vm"`
	Moref  string       `json:"moref"`
	Event  string       `json:"event"`
	Detail string       `json:"detail"`
	Time   string       `json:"time"`
	Disks  []diskRecord `json:"disks"`
	Error  string       `json:"error,omitempty"`
}

type diskRecord struct {
	Index    int    `json:"index"`
	Key      int32  `json:"key"`
	File     string `json:"file"`
	Capacity int64  `json:"capacity_bytes"`
	SHA256   string `json:"sha256"`
	Image    string `json:"image,omitempty"`
}

type recorder struct {
	mu   sync.Mutex
	list []powerRecord
	keep string // folder for images, "" for none
}

// record notes the digest of every disk; call with the VM lock held, the
// guest stopped and mu held.
func (st *vmState) record(event, detail string) {
	r := st.site.lab.records
	rec := powerRecord{Site: st.site.name, VM: st.vmName(), Moref: st.ref.Value, Event: event, Detail: detail,
		Time: time.Now().UTC().Format(time.RFC3339Nano), Disks: []diskRecord{}}
	for _, d := range st.ordered() {
		dr := diskRecord{Index: d.index, Key: d.key, File: d.file, Capacity: d.capacity}
		flat, err := st.site.flatPath(d.file)
		if err == nil {
			dr.SHA256, err = digestFile(flat)
		}
		if err != nil {
			// A proof must show that it lacks something, not omit it.
			rec.Error = fmt.Sprintf("digest of disk %d: %v", d.index, err)
		}
		rec.Disks = append(rec.Disks, dr)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	rec.Seq = len(r.list) + 1
	if r.keep != "" {
		for i := range rec.Disks {
			if err := r.keepImage(st, &rec, i); err != nil {
				rec.Error = err.Error()
			}
		}
	}
	r.list = append(r.list, rec)
}

func (r *recorder) keepImage(st *vmState, rec *powerRecord, i int) error {
	dir := filepath.Join(r.keep, rec.Site, rec.VM)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("folder for kept images: %w", err)
	}
	flat, err := st.site.flatPath(rec.Disks[i].File)
	if err != nil {
		return err
	}
	name := filepath.Join(dir, fmt.Sprintf("%d-%s-disk%d.raw", rec.Seq, rec.Event, i))
	if err := cloneFile(name, flat); err != nil {
		return fmt.Errorf("keep image: %w", err)
	}
	rec.Disks[i].Image = name
	return nil
}

func (r *recorder) find(site, vm string) []powerRecord {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := []powerRecord{}
	for _, rec := range r.list {
		if (site == "" || rec.Site == site) && (vm == "" || rec.VM == vm || rec.Moref == vm) {
			out = append(out, rec)
		}
	}
	return out
}
