package main

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
	"github.com/vmware/govmomi/vmdk"
)

// vmState is what the lab knows about a VM beyond the simulator's objects.
// Lock order: the simulator's VM lock first, then mu. Guests take only mu.
type vmState struct {
	site *site
	ref  types.ManagedObjectReference

	label atomic.Pointer[string] // name; readable while an operation holds mu

	mu    sync.Mutex
	disks map[int32]*diskState
	files map[string]string // every member of every chain -> its parent, "" for a base
	snaps map[types.ManagedObjectReference]*snapState

	trackWanted bool // config.changeTrackingEnabled
	trackActive bool // in force: needs a stun when enabled on a running VM

	running bool
	guest   *guest
	tools   bool
	ignore  bool          // guest shutdown is accepted and never happens
	delay   time.Duration // between guest shutdown and power off
	locked  map[string]string

	question  *question // what the next power-on asks
	questions int

	busyMu sync.Mutex
	busy   *simulator.Task
	busyBy *simulator.Context
}

type diskState struct {
	key        int32
	index      int
	file       string // the live file, "[ds] dir/name.vmdk"
	capacity   int64
	track      *tracker
	guestFiles []guestFile
}

type snapState struct {
	disks map[int32]snapDisk
	vmsn  string // host path of the simulator's state file
	track bool   // tracking was in force
}

type snapDisk struct {
	file     string
	capacity int64
	changeID string
}

func (s *site) newState(ref types.ManagedObjectReference, name string) *vmState {
	st := &vmState{
		site: s, ref: ref, tools: true,
		disks:  map[int32]*diskState{},
		files:  map[string]string{},
		snaps:  map[types.ManagedObjectReference]*snapState{},
		locked: map[string]string{},
	}
	st.label.Store(&name)
	st.guest = newGuest(st)
	s.mu.Lock()
	s.vms[ref] = st
	s.mu.Unlock()
	return st
}

func (s *site) state(ref types.ManagedObjectReference) *vmState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.vms[ref]
}

// byName finds a VM by name or moref value.
func (s *site) byName(name string) *vmState {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ref, st := range s.vms {
		if st.vmName() == name || ref.Value == name {
			return st
		}
	}
	return nil
}

func (s *site) states() []*vmState {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*vmState, 0, len(s.vms))
	for _, st := range s.vms {
		out = append(out, st)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].ref.Value < out[j].ref.Value })
	return out
}

func (st *vmState) vmName() string {
	return *st.label.Load()
}

// ordered lists the disks by controller position; call with mu held.
func (st *vmState) ordered() []*diskState {
	out := make([]*diskState, 0, len(st.disks))
	for _, d := range st.disks {
		out = append(out, d)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].key < out[j].key })
	for i, d := range out {
		d.index = i
	}
	return out
}

// hostPath turns "[ds] a/b.vmdk" into the path on this machine.
func (s *site) hostPath(ds string) (string, error) {
	var p object.DatastorePath
	if !p.FromString(ds) {
		return "", fmt.Errorf("%q is no datastore path: expected \"[datastore] folder/file\"", ds)
	}
	if p.Datastore != s.datastore {
		return "", fmt.Errorf("%q: site %s has only the datastore %s", ds, s.name, s.datastore)
	}
	clean := filepath.Clean("/" + p.Path)
	return filepath.Join(s.dsDir, clean), nil
}

func (s *site) flatPath(ds string) (string, error) {
	p, err := s.hostPath(ds)
	if err != nil {
		return "", err
	}
	return strings.TrimSuffix(p, ".vmdk") + "-flat.vmdk", nil
}

// writeDescriptor makes the text file of a disk agree with its flat file.
func (s *site) writeDescriptor(ds, parent string, capacity int64) error {
	p, err := s.hostPath(ds)
	if err != nil {
		return err
	}
	flat := strings.TrimSuffix(filepath.Base(p), ".vmdk") + "-flat.vmdk"
	d := vmdk.NewDescriptor(vmdk.Extent{Info: flat, Size: capacity / vmdk.SectorSize})
	d.CID = 0xfffffffe
	d.ParentCID = 0xffffffff
	d.DDB["adapterType"] = "lsilogic"
	d.DDB["virtualHWVersion"] = "21"
	if parent != "" {
		d.ParentCID = 0xfffffffe
		d.DDB["comment.parent"] = parent
	}
	f, err := os.Create(p)
	if err != nil {
		return fmt.Errorf("write disk descriptor: %w", err)
	}
	if err := d.Write(f); err != nil {
		_ = f.Close()
		return fmt.Errorf("write disk descriptor %s: %w", p, err)
	}
	return f.Close()
}

// removeDisk deletes both files of a chain member.
func (s *site) removeDisk(ds string) error {
	p, err := s.hostPath(ds)
	if err != nil {
		return err
	}
	flat, _ := s.flatPath(ds)
	for _, f := range []string{flat, p} {
		if err := os.Remove(f); err != nil && !os.IsNotExist(err) {
			return fmt.Errorf("delete disk file: %w", err)
		}
	}
	return nil
}
