package main

import (
	"os"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

func (o *operation) reconfigure() (result, types.BaseMethodFault) {
	st := o.st
	st.mu.Lock()
	defer st.mu.Unlock()
	spec := o.spec()
	if spec == nil {
		return o.orig(o.task)
	}
	if spec.ChangeVersion != "" && spec.ChangeVersion != o.vm.Config.ChangeVersion {
		return nil, &types.ConcurrentAccess{}
	}
	if spec.Name != "" && spec.Name != o.vm.Name && o.vm.Parent != nil {
		if fault := st.site.nameTaken(*o.vm.Parent, spec.Name, o.ctx); fault != nil {
			return nil, fault
		}
	}
	if fault := o.checkDevices(spec); fault != nil {
		return nil, fault
	}
	realKeys(spec, o.vm.Config.Hardware.Device)
	before := o.vm.Config
	res, fault := o.orig(o.task)
	if fault != nil {
		// The simulator leaves a half-edited device list behind.
		o.vm.Config = before
		st.render(o.ctx, o.vm)
		return res, fault
	}
	if spec.Name != "" {
		name := o.vm.Name
		st.label.Store(&name)
	}
	if spec.ChangeTrackingEnabled != nil {
		st.trackWanted = *spec.ChangeTrackingEnabled
		// Enabling on a running VM waits for a stun; disabling does not.
		if !st.running || !st.trackWanted {
			st.trackActive = st.trackWanted
		}
	}
	st.adopt(o.vm)
	if fault := st.startTracking(); fault != nil {
		return nil, fault
	}
	st.render(o.ctx, o.vm)
	o.refreshStorage()
	return res, nil
}

// startTracking begins or ends tracking without naming new instants on disks
// that are tracked already.
func (st *vmState) startTracking() types.BaseMethodFault {
	for _, d := range st.disks {
		if !st.trackActive {
			d.track = nil
			continue
		}
		if d.track != nil {
			continue
		}
		flat, err := st.site.flatPath(d.file)
		if err == nil {
			d.track, err = newTracker(flat)
		}
		if err != nil {
			complain("tracking of %s: %v", st.vmName(), err)
			return fileFault(d.file)
		}
	}
	return nil
}

// checkDevices refuses what real vSphere refuses before anything changes.
func (o *operation) checkDevices(spec *types.VirtualMachineConfigSpec) types.BaseMethodFault {
	for _, c := range spec.DeviceChange {
		ch := c.GetVirtualDeviceConfigSpec()
		disk, ok := ch.Device.(*types.VirtualDisk)
		if !ok || ch.Operation != types.VirtualDeviceConfigSpecOperationEdit {
			continue
		}
		d := o.st.disks[disk.Key]
		if d == nil {
			continue
		}
		want := max(disk.CapacityInBytes, disk.CapacityInKB*1024)
		if disk.CapacityInBytes > 0 && disk.CapacityInBytes != d.capacity {
			want = disk.CapacityInBytes
		} else if disk.CapacityInKB > 0 && disk.CapacityInKB != d.capacity/1024 {
			want = disk.CapacityInKB * 1024
		} else {
			want = d.capacity
		}
		bad := &types.InvalidDeviceOperation{BadOp: types.VirtualDeviceConfigSpecOperationEdit}
		if want < d.capacity {
			return bad
		}
		if want > d.capacity && o.st.hasParent(d.file) {
			return bad // disks with parents cannot be expanded
		}
		disk.CapacityInBytes, disk.CapacityInKB = want, want/1024
		if disk.Backing == nil {
			for _, dev := range o.vm.Config.Hardware.Device {
				if dev.GetVirtualDevice().Key == disk.Key {
					disk.Backing = dev.GetVirtualDevice().Backing
				}
			}
		}
	}
	return nil
}

// adopt brings the lab's list of disks in line with the configuration and
// gives new or larger disks their bytes. Call with mu held.
func (st *vmState) adopt(vm *simulator.VirtualMachine) {
	seen := map[int32]bool{}
	for _, dev := range vm.Config.Hardware.Device {
		disk, ok := dev.(*types.VirtualDisk)
		if !ok {
			continue
		}
		b, ok := disk.Backing.(types.BaseVirtualDeviceFileBackingInfo)
		if !ok {
			continue
		}
		file := b.GetVirtualDeviceFileBackingInfo().FileName
		flat, err := st.site.flatPath(file)
		if err != nil {
			complain("disk of %s: %v", st.vmName(), err)
			continue
		}
		seen[disk.Key] = true
		size := int64(0)
		if fi, err := os.Stat(flat); err == nil {
			size = fi.Size()
		}
		capacity := max(disk.CapacityInBytes, size)
		d := st.disks[disk.Key]
		if d == nil || d.file != file {
			d = &diskState{key: disk.Key, file: file, capacity: capacity}
			st.disks[disk.Key] = d
			if _, known := st.files[file]; !known {
				st.files[file] = ""
			}
		}
		if size < capacity || d.capacity < capacity {
			if err := makeSize(flat, capacity); err != nil {
				complain("size of %s: %v", file, err)
			}
			if d.capacity < capacity {
				d.track = nil // growth begins a new life of the tracking
			}
			d.capacity = capacity
		}
		if err := st.site.writeDescriptor(file, st.files[file], d.capacity); err != nil {
			complain("descriptor of %s: %v", file, err)
		}
	}
	for key, d := range st.disks {
		if !seen[key] {
			delete(st.disks, key)
			// A detached file is whole by itself and no longer ours to merge.
			if !st.inUse(d.file) {
				delete(st.files, d.file)
			}
		}
	}
}

func makeSize(flat string, size int64) error {
	f, err := os.OpenFile(flat, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := f.Truncate(size); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}

func (o *operation) spec() *types.VirtualMachineConfigSpec {
	if r, ok := o.call.body.(*types.ReconfigVM_Task); ok {
		return &r.Spec
	}
	return nil
}

// realKeys replaces a client's placeholder keys by those vSphere assigns:
// 1000 + bus for SCSI, 2000 + 16 * bus + unit for its disks, 4000 for NICs.
func realKeys(spec *types.VirtualMachineConfigSpec, have []types.BaseVirtualDevice) {
	used := map[int32]bool{}
	bus := map[int32]int32{}
	note := func(d types.BaseVirtualDevice) {
		used[d.GetVirtualDevice().Key] = true
		if c, ok := d.(types.BaseVirtualSCSIController); ok {
			bus[d.GetVirtualDevice().Key] = c.GetVirtualSCSIController().BusNumber
		}
	}
	for _, d := range have {
		note(d)
	}
	renamed := map[int32]int32{}
	for pass := range 2 { // controllers first: disks refer to them
		for _, c := range spec.DeviceChange {
			ch := c.GetVirtualDeviceConfigSpec()
			dev := ch.Device.GetVirtualDevice()
			scsi, isCtl := ch.Device.(types.BaseVirtualSCSIController)
			if ch.Operation != types.VirtualDeviceConfigSpecOperationAdd || isCtl != (pass == 0) {
				continue
			}
			if k, ok := renamed[dev.ControllerKey]; ok {
				dev.ControllerKey = k
			}
			want := int32(0)
			if _, ok := ch.Device.(types.BaseVirtualEthernetCard); ok {
				want = 4000
			} else if isCtl {
				want = 1000 + scsi.GetVirtualSCSIController().BusNumber
			} else if _, ok := ch.Device.(*types.VirtualDisk); ok && dev.UnitNumber != nil {
				b, ok := bus[dev.ControllerKey]
				if ok {
					want = 2000 + 16*b + *dev.UnitNumber
				}
			}
			if dev.Key > 0 && !used[dev.Key] && dev.Key >= 1000 {
				want = dev.Key
			}
			if want == 0 {
				continue
			}
			for used[want] {
				want++
			}
			if dev.Key != want {
				renamed[dev.Key] = want
				dev.Key = want
			}
			note(ch.Device)
		}
	}
}

func (o *operation) rename() (result, types.BaseMethodFault) {
	o.st.mu.Lock()
	defer o.st.mu.Unlock()
	if r, ok := o.call.body.(*types.Rename_Task); ok && o.vm.Parent != nil && r.NewName != o.vm.Name {
		if fault := o.st.site.nameTaken(*o.vm.Parent, r.NewName, o.ctx); fault != nil {
			return nil, fault
		}
	}
	res, fault := o.orig(o.task)
	if fault == nil {
		name := o.vm.Name
		o.st.label.Store(&name)
		o.ctx.Update(o.vm, []types.PropertyChange{
			{Name: "config.name", Val: name}, {Name: "summary.config.name", Val: name}, {Name: "config.changeVersion", Val: nextVersion()}})
		o.st.saveVMX(o.vm)
	}
	return res, fault
}

// nameTaken enforces one name per folder.
func (s *site) nameTaken(folder types.ManagedObjectReference, name string, ctx *simulator.Context) types.BaseMethodFault {
	f, ok := ctx.Map.Get(folder).(*simulator.Folder)
	if !ok {
		return nil
	}
	var kids []types.ManagedObjectReference
	ctx.WithLock(f, func() { kids = append(kids, f.ChildEntity...) })
	for _, ref := range kids {
		have := ""
		if st := s.state(ref); st != nil {
			have = st.vmName()
		} else if e, ok := ctx.Map.Get(ref).(mo.Entity); ok && ref.Type != "VirtualMachine" {
			have = e.Entity().Name
		}
		if have == name {
			return &types.DuplicateName{Name: name, Object: ref}
		}
	}
	return nil
}
