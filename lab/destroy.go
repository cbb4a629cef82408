package main

import (
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/types"
)

// destroy deletes the VM's own files. The simulator would delete the whole
// folder, with disks in it that belong to other VMs, and leave snapshots
// readable.
func (o *operation) destroy() (result, types.BaseMethodFault) {
	st := o.st
	back := func() {}
	if o.vm.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOff {
		b, err := o.setAside()
		if err != nil {
			complain("destroy %s: %v", st.vmName(), err)
			return nil, fileFault(o.vm.Config.Files.VmPathName)
		}
		back = b
	}
	res, fault := o.orig(o.task)
	if fault != nil {
		back()
		return res, fault
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	for ref := range st.snaps {
		o.ctx.Map.Remove(o.ctx, ref)
	}
	st.snaps = map[types.ManagedObjectReference]*snapState{}
	for file := range st.files {
		// Disks outside the VM's folder survive the simulator's deletion.
		_ = st.site.removeDisk(file)
	}
	// The deletion is a task of its own, started by the simulator.
	o.waitGone()
	back()
	return res, nil
}

// setAside moves foreign disks out of the VM's folder and returns how to put
// them back.
func (o *operation) setAside() (func(), error) {
	st := o.st
	var vmx object.DatastorePath
	if !vmx.FromString(o.vm.Config.Files.VmPathName) {
		return func() {}, nil
	}
	host, err := st.site.hostPath(o.vm.Config.Files.VmPathName)
	if err != nil {
		return nil, err
	}
	dir := filepath.Dir(host)
	st.mu.Lock()
	own := map[string]bool{}
	for f := range st.files {
		own[f] = true
	}
	st.mu.Unlock()
	entries, err := os.ReadDir(dir)
	if err != nil {
		return func() {}, nil // nothing there to keep
	}
	aside := dir + ".aside"
	moved := []string{}
	for _, e := range entries {
		if filepath.Ext(e.Name()) != ".vmdk" {
			continue
		}
		base := strings.TrimSuffix(strings.TrimSuffix(e.Name(), ".vmdk"), "-flat")
		ds := object.DatastorePath{Datastore: vmx.Datastore, Path: path.Join(path.Dir(vmx.Path), base+".vmdk")}
		if own[ds.String()] {
			continue
		}
		if err := os.MkdirAll(aside, 0o700); err != nil {
			return nil, err
		}
		if err := os.Rename(filepath.Join(dir, e.Name()), filepath.Join(aside, e.Name())); err != nil {
			return nil, err
		}
		moved = append(moved, e.Name())
	}
	return func() {
		if len(moved) == 0 {
			return
		}
		err := os.MkdirAll(dir, 0o700)
		for _, name := range moved {
			if e := os.Rename(filepath.Join(aside, name), filepath.Join(dir, name)); e != nil {
				err = e
			}
		}
		if e := os.Remove(aside); e != nil {
			err = e
		}
		if err != nil {
			complain("put foreign disks back into %s: %v", dir, err)
		}
	}, nil
}

// waitGone waits for the deletion of the folder.
func (o *operation) waitGone() {
	host, err := o.st.site.hostPath(o.vm.Config.Files.VmPathName)
	if err != nil {
		return
	}
	for range 200 {
		if _, err := os.Stat(filepath.Dir(host)); os.IsNotExist(err) {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}
