package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"time"
)

const (
	demoSize    = 128 << 20
	journalPath = "/var/lib/guest/journal.bin"
	latePath    = "/srv/orders/late-order.txt"
	lateSize    = 4096
)

// demoInfo tells a proof script what the replica's disks hold that the
// production disks do not.
type demoInfo struct {
	Production string     `json:"production_vm"`
	Replica    string     `json:"replica_vm"`
	LateFile   lateInfo   `json:"late_file"`
	Journal    string     `json:"journal_path"`
	Disks      []demoDisk `json:"disks"`
	BuildSecs  float64    `json:"build_seconds"`
}

type lateInfo struct {
	Disk  int    `json:"disk"`
	Path  string `json:"path"`
	Bytes int    `json:"bytes"`
}

type demoDisk struct {
	Index     int        `json:"index"`
	Name      string     `json:"name"`
	Edited    []demoFile `json:"edited"`
	Added     []demoFile `json:"added"`
	Deleted   []demoFile `json:"deleted"`
	Unchanged []demoFile `json:"unchanged"`
}

// demoFile names the content on the replica and, where there is one, the
// stale content on production.
type demoFile struct {
	Path   string `json:"path"`
	SHA256 string `json:"sha256,omitempty"`
	Size   int    `json:"size,omitempty"`
	Old    string `json:"production_sha256,omitempty"`
}

type contents map[string][]byte

// demoWorld builds a server that was failed over: a production VM as it was
// before the disaster and the replica that has been working since.
func demoWorld(o options) (*world, error) {
	began := time.Now()
	work := filepath.Join(o.root, "demo-build")
	if err := os.MkdirAll(work, 0o700); err != nil {
		return nil, fmt.Errorf("demo build folder: %w", err)
	}
	defer os.RemoveAll(work) // what is needed moved into the datastores
	for _, tool := range []string{"mke2fs", "debugfs"} {
		if _, err := e2tool(tool); err != nil {
			return nil, err
		}
	}
	yes := true
	info := &demoInfo{Production: "web01", Replica: "web01-replica", Journal: journalPath,
		LateFile: lateInfo{Disk: 1, Path: latePath, Bytes: lateSize}}
	prod := worldVM{Name: "web01", Power: o.demoPower, Tools: &yes, MemoryMB: 2048, CPUs: 2, Guest: &worldGuest{IntervalMS: 200}}
	dr := worldVM{Name: "web01-replica", Power: "on", Tools: &yes, MemoryMB: 2048, CPUs: 2, Guest: &worldGuest{IntervalMS: 20}}
	type built struct {
		p, r worldDisk
		d    demoDisk
		err  error
	}
	parts := make([]chan built, 2)
	for i, name := range []string{"system", "data"} {
		parts[i] = make(chan built, 1)
		go func() {
			p, r, d, err := demoPair(filepath.Join(work, name), o.root, name, i)
			parts[i] <- built{p, r, d, err}
		}()
	}
	for _, c := range parts {
		b := <-c
		if b.err != nil {
			return nil, fmt.Errorf("demo disk %q: %w", b.d.Name, b.err)
		}
		prod.Disks, dr.Disks = append(prod.Disks, b.p), append(dr.Disks, b.r)
		info.Disks = append(info.Disks, b.d)
	}
	info.BuildSecs = time.Since(began).Seconds()
	w := &world{demo: info, Sites: []worldSite{
		{Name: "production", VMs: []worldVM{prod}},
		{Name: "dr", VMs: []worldVM{dr}},
	}}
	return w, w.check()
}

// demoPair builds one disk of both VMs.
func demoPair(work, root, name string, index int) (p, r worldDisk, d demoDisk, err error) {
	d = demoDisk{Index: index, Name: name, Edited: []demoFile{}, Added: []demoFile{}, Deleted: []demoFile{}, Unchanged: []demoFile{}}
	tree, edits := demoFiles(name)
	if err = writeTree(filepath.Join(work, "tree"), tree); err != nil {
		return
	}
	images := filepath.Join(root, "demo-images")
	if err = os.MkdirAll(images, 0o700); err != nil {
		return
	}
	pi, ri := filepath.Join(images, "production-"+name+".raw"), filepath.Join(images, "replica-"+name+".raw")
	if err = makeFS(pi, filepath.Join(work, "tree"), name, demoSize); err != nil {
		return
	}
	if err = cloneFile(ri, pi); err != nil {
		return
	}
	if err = writeTree(filepath.Join(work, "new"), edits); err != nil {
		return
	}
	var list []fsEdit
	for _, path := range sortedPaths(edits) {
		body, old := edits[path], tree[path]
		f := demoFile{Path: path, Size: len(body)}
		e := fsEdit{path: path, remove: old != nil}
		if body != nil {
			f.SHA256 = sum(body)
			e.source = filepath.Join(work, "new", path)
		}
		switch {
		case body == nil:
			f.Old = sum(old)
			d.Deleted = append(d.Deleted, f)
		case old == nil:
			d.Added = append(d.Added, f)
		default:
			f.Old = sum(old)
			d.Edited = append(d.Edited, f)
		}
		list = append(list, e)
	}
	if err = editFS(ri, filepath.Join(work, "edits"), list); err != nil {
		return
	}
	for _, path := range sortedPaths(tree) {
		_, changed := edits[path]
		if !changed && path != journalPath && path != latePath {
			d.Unchanged = append(d.Unchanged, demoFile{Path: path, SHA256: sum(tree[path]), Size: len(tree[path])})
		}
	}
	if p, err = demoDiskOf(pi, name); err != nil {
		return
	}
	r, err = demoDiskOf(ri, name)
	return
}

func demoDiskOf(image, name string) (worldDisk, error) {
	d := worldDisk{SizeBytes: demoSize, Image: image, move: true}
	files := []guestFile{{Path: journalPath}}
	if name == "data" {
		files = append(files, guestFile{Path: latePath, Manual: true})
	}
	for _, f := range files {
		e, err := fileExtents(image, f.Path)
		if err != nil {
			return d, err
		}
		f.Extents = e
		d.GuestFiles = append(d.GuestFiles, f)
	}
	return d, nil
}

func writeTree(dir string, files contents) error {
	for name, body := range files {
		if body == nil {
			continue
		}
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			return fmt.Errorf("demo file: %w", err)
		}
		if err := os.WriteFile(p, body, 0o644); err != nil {
			return fmt.Errorf("demo file: %w", err)
		}
	}
	return nil
}

func sortedPaths(c contents) []string {
	out := make([]string, 0, len(c))
	for p := range c {
		out = append(out, p)
	}
	sort.Strings(out)
	return out
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}
