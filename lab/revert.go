package main

import (
	"bytes"
	"fmt"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
	"github.com/vmware/govmomi/vim25/xml"
)

func (o *operation) revertToCurrent() (result, types.BaseMethodFault) {
	if o.vm.Snapshot == nil || o.vm.Snapshot.CurrentSnapshot == nil {
		return nil, &types.NotFound{}
	}
	return nil, o.revert(*o.vm.Snapshot.CurrentSnapshot, false)
}

// revert restores content, configuration and power state of a snapshot.
func (o *operation) revert(ref types.ManagedObjectReference, stayOff bool) types.BaseMethodFault {
	st := o.st
	st.mu.Lock()
	defer st.mu.Unlock()
	snap, ok := o.ctx.Map.Get(ref).(*simulator.VirtualMachineSnapshot)
	ss := st.snaps[ref]
	var node *types.VirtualMachineSnapshotTree
	if o.vm.Snapshot != nil {
		node = findNode(o.vm.Snapshot.RootSnapshotList, ref)
	}
	if !ok || ss == nil || node == nil {
		return &types.ManagedObjectNotFound{Obj: ref}
	}
	st.haltGuest()
	if o.vm.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOff {
		o.ctx.Update(o.vm, powerChange(types.VirtualMachinePowerStatePoweredOff))
		o.postEvent(func(e types.VmEvent) types.BaseEvent { return &types.VmPoweredOffEvent{VmEvent: e} })
		if fault := o.becameOff("power-off", "revert", true); fault != nil {
			return fault
		}
	}
	fresh := map[int32]*diskState{}
	for key, sd := range ss.disks {
		file, err := st.growChain(sd.file, sd.capacity)
		if err != nil {
			complain("revert of %s: %v", st.vmName(), err)
			for _, d := range fresh {
				_ = st.dropFile(d.file)
			}
			return fileFault(sd.file)
		}
		fresh[key] = &diskState{key: key, file: file, capacity: sd.capacity}
		if old := st.disks[key]; old != nil {
			fresh[key].guestFiles = old.guestFiles
		}
	}
	old := st.disks
	st.disks = fresh
	for _, d := range old {
		if st.hasParent(d.file) && !st.inUse(d.file) {
			if err := st.dropFile(d.file); err != nil {
				complain("revert of %s: %v", st.vmName(), err)
			}
		}
	}
	cfg, err := copyConfig(&snap.Config)
	if err != nil {
		complain("revert of %s: %v", st.vmName(), err)
		return &types.GenericVmConfigFault{Reason: err.Error()}
	}
	cfg.Name = o.vm.Config.Name // the inventory name is no part of a snapshot
	cfg.ChangeVersion, cfg.Modified = nextVersion(), time.Now()
	st.trackWanted = cfg.ChangeTrackingEnabled != nil && *cfg.ChangeTrackingEnabled
	st.trackActive = st.trackWanted
	if fault := st.loseTracking(); fault != nil {
		return fault
	}
	disks, nics := countDevices(cfg.Hardware.Device)
	o.ctx.Update(o.vm, []types.PropertyChange{
		{Name: "config", Val: *cfg},
		{Name: "summary.config.numCpu", Val: cfg.Hardware.NumCPU},
		{Name: "summary.config.memorySizeMB", Val: cfg.Hardware.MemoryMB},
		{Name: "summary.config.numVirtualDisks", Val: disks},
		{Name: "summary.config.numEthernetCards", Val: nics},
		{Name: "summary.config.annotation", Val: cfg.Annotation},
	})
	root := cloneTree(o.vm.Snapshot.RootSnapshotList)
	o.setTree(root, &ref)
	if node.State == types.VirtualMachinePowerStatePoweredOn && !stayOff {
		o.ctx.Update(o.vm, powerChange(types.VirtualMachinePowerStatePoweredOn))
		o.postEvent(func(e types.VmEvent) types.BaseEvent { return &types.VmPoweredOnEvent{VmEvent: e} })
		if fault := o.becameOn("revert"); fault != nil {
			return fault
		}
	}
	st.render(o.ctx, o.vm)
	o.refreshStorage()
	return nil
}

func powerChange(state types.VirtualMachinePowerState) []types.PropertyChange {
	return []types.PropertyChange{
		{Name: "runtime.powerState", Val: state},
		{Name: "summary.runtime.powerState", Val: state},
	}
}

func (st *vmState) hasParent(file string) bool { return st.files[file] != "" }

func countDevices(list []types.BaseVirtualDevice) (disks, nics int32) {
	for _, d := range list {
		switch d.(type) {
		case *types.VirtualDisk:
			disks++
		case types.BaseVirtualEthernetCard:
			nics++
		}
	}
	return disks, nics
}

// copyConfig copies through XML, the one form that covers every pointer and
// interface of a configuration.
func copyConfig(src *types.VirtualMachineConfigInfo) (*types.VirtualMachineConfigInfo, error) {
	b, err := xml.Marshal(*src)
	if err != nil {
		return nil, fmt.Errorf("encode snapshot configuration: %w", err)
	}
	dst := new(types.VirtualMachineConfigInfo)
	dec := xml.NewDecoder(bytes.NewReader(b))
	dec.TypeFunc = types.TypeFunc()
	if err := dec.Decode(dst); err != nil {
		return nil, fmt.Errorf("decode snapshot configuration: %w", err)
	}
	return dst, nil
}
