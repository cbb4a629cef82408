package main

import (
	"encoding/hex"
	"net/http"
	"path/filepath"
	"time"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"
)

func dirOf(p string) string { return filepath.Dir(p) }

func (l *lab) vmRoutes(on func(string, func(*http.Request) (any, error))) {
	vm := func(pattern string, f func(*vmState, *http.Request) (any, error)) {
		on(pattern, l.onSite(func(s *site, r *http.Request) (any, error) {
			st := s.byName(r.PathValue("vm"))
			if st == nil {
				return nil, failed(404, "site %s has no VM %q (a lab started with --plain has none here)", s.name, r.PathValue("vm"))
			}
			return f(st, r)
		}))
	}
	const p = "/sites/{site}/vms/{vm}"
	vm("GET "+p+"/digest", (*vmState).serveDigest)
	vm("POST "+p+"/guest/write", (*vmState).serveWrite)
	vm("POST "+p+"/guest/start", func(st *vmState, _ *http.Request) (any, error) { return st.setWriting(true) })
	vm("POST "+p+"/guest/stop", func(st *vmState, _ *http.Request) (any, error) { return st.setWriting(false) })
	vm("POST "+p+"/guest/config", (*vmState).serveGuestConfig)
	vm("POST "+p+"/power", (*vmState).servePower)
	vm("POST "+p+"/question", (*vmState).serveQuestion)
	vm("POST "+p+"/reregister", (*vmState).serveReregister)
	vm("POST "+p+"/condition", (*vmState).serveCondition)
	vm("POST "+p+"/snapshot", (*vmState).serveSnapshot)
	vm("POST "+p+"/lock", (*vmState).serveLock)
}

func (st *vmState) serveDigest(*http.Request) (any, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	out := []diskRecord{}
	for _, d := range st.ordered() {
		flat, err := st.site.flatPath(d.file)
		if err != nil {
			return nil, err
		}
		sum, err := digestFile(flat)
		if err != nil {
			return nil, err
		}
		out = append(out, diskRecord{Index: d.index, Key: d.key, File: d.file, Capacity: d.capacity, SHA256: sum})
	}
	return reply{"disks": out}, nil
}

type writeRequest struct {
	Disk   int     `json:"disk"`
	Offset int64   `json:"offset"`
	Hex    string  `json:"hex"`
	Text   string  `json:"text"`
	Seed   *uint64 `json:"seed"`
	Length int64   `json:"length"`
	File   string  `json:"file"`
	At     int64   `json:"at"`
}

// serveWrite is the guest saving something at a moment the test chooses.
func (st *vmState) serveWrite(r *http.Request) (any, error) {
	var in writeRequest
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	data := []byte(in.Text)
	switch {
	case in.Hex != "":
		b, err := hex.DecodeString(in.Hex)
		if err != nil {
			return nil, failed(400, "hex: %v", err)
		}
		data = b
	case in.Seed != nil:
		if in.Length < 1 || in.Length > 64<<20 {
			return nil, failed(400, "length must be between 1 and 64 MiB")
		}
		data = make([]byte, in.Length)
		_, _ = seededSource(*in.Seed).Read(data)
	}
	if len(data) == 0 {
		return nil, failed(400, "nothing to write: give text, hex, or seed with length")
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if !st.running {
		return nil, failed(409, "%s is not powered on: a guest that is off writes nothing", st.vmName())
	}
	disks := st.ordered()
	if in.Disk < 0 || in.Disk >= len(disks) {
		return nil, failed(404, "%s has no disk %d", st.vmName(), in.Disk)
	}
	d := disks[in.Disk]
	pieces := []span{{in.Offset, int64(len(data))}}
	if in.File != "" {
		p, err := fileSpans(d, in.File, in.At, int64(len(data)))
		if err != nil {
			return nil, err
		}
		pieces = p
	}
	for _, s := range pieces {
		if !inside(s.off, s.length, d.capacity) {
			return nil, failed(400, "%d bytes at %d leave the disk of %d bytes", s.length, s.off, d.capacity)
		}
	}
	rest := data
	for _, s := range pieces {
		if err := st.writeDisk(d, s.off, rest[:s.length]); err != nil {
			return nil, err
		}
		rest = rest[s.length:]
	}
	return reply{"ok": true, "bytes": len(data)}, nil
}

// fileSpans maps a range of a preallocated guest file to the disk.
func fileSpans(d *diskState, path string, at, length int64) ([]span, error) {
	for _, f := range d.guestFiles {
		if f.Path != path {
			continue
		}
		var out []span
		pos := int64(0)
		for _, e := range f.Extents {
			from, to := max(at, pos), min(at+length, pos+e[1])
			if from < to {
				out = append(out, span{e[0] + from - pos, to - from})
			}
			pos += e[1]
		}
		if at < 0 || at+length > pos {
			return nil, failed(400, "%s has %d bytes: %d at %d do not fit", path, pos, length, at)
		}
		return out, nil
	}
	return nil, failed(404, "disk %d has no preallocated guest file %q", d.index, path)
}

func (st *vmState) setWriting(enabled bool) (any, error) {
	if !enabled {
		st.stopGuest()
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	st.guest.enabled = enabled
	if enabled && st.running {
		st.guest.start()
	}
	return reply{"ok": true, "writing": st.guest.stopCh != nil}, nil
}

func (st *vmState) serveGuestConfig(r *http.Request) (any, error) {
	var in struct {
		IntervalMS      *int64 `json:"interval_ms"`
		IgnoreShutdown  *bool  `json:"ignore_shutdown"`
		ShutdownDelayMS *int64 `json:"shutdown_delay_ms"`
		Tools           *bool  `json:"tools"`
	}
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	if in.IntervalMS != nil {
		st.stopGuest()
	}
	if in.Tools != nil {
		if err := st.site.setTools(st, *in.Tools); err != nil {
			return nil, err
		}
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if in.IntervalMS != nil {
		st.guest.interval = time.Duration(*in.IntervalMS) * time.Millisecond
		if st.running {
			st.guest.start()
		}
	}
	if in.IgnoreShutdown != nil {
		st.ignore = *in.IgnoreShutdown
	}
	if in.ShutdownDelayMS != nil {
		st.delay = time.Duration(*in.ShutdownDelayMS) * time.Millisecond
	}
	return reply{"ok": true, "interval_ms": st.guest.interval.Milliseconds(), "ignore_shutdown": st.ignore,
		"shutdown_delay_ms": st.delay.Milliseconds(), "tools": st.tools}, nil
}

// serveLock fills the table of disks somebody holds open: a power-on answers
// FileLocked as long as an entry is there.
func (st *vmState) serveLock(r *http.Request) (any, error) {
	in := struct {
		Disk   int    `json:"disk"`
		Locked bool   `json:"locked"`
		By     string `json:"by"`
	}{Locked: true, By: "exporter"}
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	disks := st.ordered()
	if in.Disk < 0 || in.Disk >= len(disks) {
		return nil, failed(404, "%s has no disk %d", st.vmName(), in.Disk)
	}
	if in.Locked {
		st.locked[disks[in.Disk].file] = in.By
	} else {
		delete(st.locked, disks[in.Disk].file)
	}
	return reply{"ok": true, "locked": st.locked}, nil
}

// servePower is somebody else at the vSphere client.
func (st *vmState) servePower(r *http.Request) (any, error) {
	in := struct {
		On   bool `json:"on"`
		Hard bool `json:"hard"`
	}{}
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	ctx, c := internal("control"), st.site.client
	var task types.ManagedObjectReference
	switch {
	case in.On:
		res, err := methods.PowerOnVM_Task(ctx, c, &types.PowerOnVM_Task{This: st.ref})
		if err != nil {
			return nil, failed(409, "power on: %v", err)
		}
		task = res.Returnval
	case in.Hard:
		res, err := methods.PowerOffVM_Task(ctx, c, &types.PowerOffVM_Task{This: st.ref})
		if err != nil {
			return nil, failed(409, "power off: %v", err)
		}
		task = res.Returnval
	default:
		if _, err := methods.ShutdownGuest(ctx, c, &types.ShutdownGuest{This: st.ref}); err != nil {
			return nil, failed(409, "shut down: %v", err)
		}
		return reply{"ok": true, "note": "the guest shuts down by itself; watch /state"}, nil
	}
	if _, err := st.site.await(task); err != nil {
		return nil, failed(409, "%v", err)
	}
	return reply{"ok": true, "task": task.Value}, nil
}

func (st *vmState) serveSnapshot(r *http.Request) (any, error) {
	in := struct {
		Name        string `json:"name"`
		Description string `json:"description"`
		Memory      bool   `json:"memory"`
	}{Name: "made by somebody else"}
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	res, err := methods.CreateSnapshot_Task(internal("control"), st.site.client, &types.CreateSnapshot_Task{
		This: st.ref, Name: in.Name, Description: in.Description, Memory: in.Memory})
	if err != nil {
		return nil, failed(409, "snapshot: %v", err)
	}
	out, err := st.site.await(res.Returnval)
	if err != nil {
		return nil, failed(409, "%v", err)
	}
	ref, _ := out.(types.ManagedObjectReference)
	return reply{"ok": true, "snapshot": ref.Value}, nil
}
