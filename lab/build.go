package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"
)

// populate makes the VMs of a site, fills their disks and starts them.
func (l *lab) populate() error {
	for i, s := range l.sites {
		for _, v := range l.world.Sites[i].VMs {
			if err := s.createVM(v); err != nil {
				return fmt.Errorf("create %s/%s: %w", s.name, v.Name, err)
			}
		}
	}
	// Contents come after all VMs exist: a disk may be a copy of any other.
	for i, s := range l.sites {
		for _, v := range l.world.Sites[i].VMs {
			for n, d := range v.Disks {
				if err := l.fillDisk(s, v, n, d); err != nil {
					return fmt.Errorf("fill disk %d of %s/%s: %w", n, s.name, v.Name, err)
				}
			}
		}
	}
	for i, s := range l.sites {
		for _, v := range l.world.Sites[i].VMs {
			if err := s.bringUp(v); err != nil {
				return fmt.Errorf("bring up %s/%s: %w", s.name, v.Name, err)
			}
		}
	}
	return nil
}

// await runs a task of the simulator to its end without polling the wire.
func (s *site) await(ref types.ManagedObjectReference) (types.AnyType, error) {
	t, ok := s.ctx.Map.Get(ref).(*simulator.Task)
	if !ok {
		return nil, fmt.Errorf("task %s is gone", ref.Value)
	}
	t.Wait()
	var res types.AnyType
	var fault *types.LocalizedMethodFault
	s.freshContext().WithLock(t, func() { res, fault = t.Info.Result, t.Info.Error })
	if fault != nil {
		return nil, fmt.Errorf("task %s failed with %T", ref.Value, fault.Fault)
	}
	return res, nil
}

func diskFile(ds, vm string, n int) string {
	if n == 0 {
		return fmt.Sprintf("[%s] %s/%s.vmdk", ds, vm, vm)
	}
	return fmt.Sprintf("[%s] %s/%s_%d.vmdk", ds, vm, vm, n)
}

func (s *site) createVM(v worldVM) error {
	id := stableUUID(s.name + "/" + v.Name)
	spec := types.VirtualMachineConfigSpec{
		Name: v.Name, GuestId: string(types.VirtualMachineGuestOsIdentifierOtherLinux64Guest),
		NumCPUs: v.CPUs, MemoryMB: v.MemoryMB, Version: "vmx-21",
		Uuid: "42" + id[2:], InstanceUuid: "50" + id[2:],
		Files: &types.VirtualMachineFileInfo{VmPathName: fmt.Sprintf("[%s] %s/%s.vmx", s.datastore, v.Name, v.Name)},
	}
	add := func(d types.BaseVirtualDevice, op types.VirtualDeviceConfigSpecFileOperation) {
		spec.DeviceChange = append(spec.DeviceChange, &types.VirtualDeviceConfigSpec{
			Operation: types.VirtualDeviceConfigSpecOperationAdd, FileOperation: op, Device: d})
	}
	scsi := &types.ParaVirtualSCSIController{}
	scsi.Key, scsi.SharedBus = 1000, types.VirtualSCSISharingNoSharing
	add(scsi, "")
	for n, d := range v.Disks {
		unit := int32(n)
		if n >= 7 {
			unit++ // unit 7 is the controller itself
		}
		b := &types.VirtualDiskFlatVer2BackingInfo{DiskMode: string(types.VirtualDiskModePersistent), ThinProvisioned: types.NewBool(true)}
		b.FileName = diskFile(s.datastore, v.Name, n)
		b.Uuid = stableUUID(s.name + "/" + v.Name + "/" + strconv.Itoa(n))
		disk := &types.VirtualDisk{CapacityInBytes: d.SizeBytes, CapacityInKB: d.SizeBytes / 1024}
		disk.Key, disk.ControllerKey, disk.UnitNumber, disk.Backing = 2000+unit, 1000, &unit, b
		add(disk, types.VirtualDeviceConfigSpecFileOperationCreate)
	}
	net := &types.VirtualEthernetCardNetworkBackingInfo{}
	net.DeviceName = "VM Network"
	nic := &types.VirtualVmxnet3{}
	nic.Key, nic.Backing, nic.AddressType = 4000, net, string(types.VirtualEthernetCardMacTypeAssigned)
	nic.Connectable = &types.VirtualDeviceConnectInfo{StartConnected: true, AllowGuestControl: true}
	add(nic, "")
	if err := os.MkdirAll(filepath.Join(s.dsDir, v.Name), 0o700); err != nil {
		return fmt.Errorf("VM folder: %w", err)
	}
	task, err := s.folders.VmFolder.CreateVM(internal("build"), spec, s.pool, nil)
	if err != nil {
		return err
	}
	res, err := s.await(task.Reference())
	if err != nil {
		return err
	}
	ref, ok := res.(types.ManagedObjectReference)
	if !ok {
		return fmt.Errorf("the simulator answered %T instead of a VM", res)
	}
	s.morefs[v.Name] = ref
	return nil
}

// fillDisk writes the initial content of a disk.
func (l *lab) fillDisk(s *site, v worldVM, n int, d worldDisk) error {
	flat, err := s.flatPath(diskFile(s.datastore, v.Name, n))
	if err != nil {
		return err
	}
	src := d.Image
	if d.CopyOf != "" {
		if src, err = l.diskByPath(d.CopyOf); err != nil {
			return err
		}
	}
	if src != "" {
		if err := os.Remove(flat); err != nil && !os.IsNotExist(err) {
			return fmt.Errorf("replace %s: %w", flat, err)
		}
		if d.move {
			err = os.Rename(src, flat)
		} else {
			err = cloneFile(flat, src)
		}
		if err != nil {
			return fmt.Errorf("take the content of %s: %w", src, err)
		}
	}
	f, err := os.OpenFile(flat, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("open disk: %w", err)
	}
	defer f.Close()
	if err := f.Truncate(d.SizeBytes); err != nil {
		return fmt.Errorf("set disk size: %w", err)
	}
	if d.Seed != nil {
		if err := fillRandom(f, 0, d.SizeBytes, *d.Seed); err != nil {
			return err
		}
	}
	for _, h := range d.Holes {
		if err := punch(f, h.Offset, h.Length); err != nil {
			return err
		}
	}
	for _, c := range d.Changes {
		if err := fillRandom(f, c.Offset, c.Length, c.Seed); err != nil {
			return err
		}
	}
	return nil
}

// diskByPath resolves "site/vm/index".
func (l *lab) diskByPath(p string) (string, error) {
	parts := strings.Split(p, "/")
	if len(parts) != 3 || l.byName[parts[0]] == nil {
		return "", fmt.Errorf("copy_of %q: write site/vm/disk, for instance production/web01/0", p)
	}
	n, err := strconv.Atoi(parts[2])
	if err != nil {
		return "", fmt.Errorf("copy_of %q: %q is no disk number", p, parts[2])
	}
	s := l.byName[parts[0]]
	return s.flatPath(diskFile(s.datastore, parts[1], n))
}

// bringUp sets what only the lab knows, then tracking and power.
func (s *site) bringUp(v worldVM) error {
	ref := s.morefs[v.Name]
	if st := s.state(ref); st != nil {
		st.mu.Lock()
		if v.Tools != nil {
			st.tools = *v.Tools
		}
		if v.Guest != nil {
			st.guest.interval = time.Duration(v.Guest.IntervalMS) * time.Millisecond
		}
		for i, d := range st.ordered() {
			if i < len(v.Disks) {
				d.guestFiles = v.Disks[i].GuestFiles
			}
		}
		st.mu.Unlock()
	}
	ctx := internal("build")
	if v.Tracking {
		req := types.ReconfigVM_Task{This: ref, Spec: types.VirtualMachineConfigSpec{ChangeTrackingEnabled: types.NewBool(true)}}
		res, err := methods.ReconfigVM_Task(ctx, s.client, &req)
		if err != nil {
			return fmt.Errorf("enable tracking: %w", err)
		}
		if _, err := s.await(res.Returnval); err != nil {
			return fmt.Errorf("enable tracking: %w", err)
		}
	}
	if v.Power == "on" {
		res, err := methods.PowerOnVM_Task(ctx, s.client, &types.PowerOnVM_Task{This: ref})
		if err != nil {
			return fmt.Errorf("power on: %w", err)
		}
		if _, err := s.await(res.Returnval); err != nil {
			return fmt.Errorf("power on: %w", err)
		}
	}
	return nil
}
