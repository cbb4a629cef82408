package main

import (
	"context"
	"fmt"

	"github.com/vmware/govmomi"
	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

type vm struct {
	Name  string `json:"name"`
	Power string `json:"power"`
	Disks []struct {
		SizeBytes int64 `json:"size_bytes"`
	} `json:"disks"`
}

// populate makes the VMs as any client would: nothing of this is the simulator's own business.
func populate(ctx context.Context, service *simulator.Service, vms []vm) error {
	client, err := govmomi.NewClient(ctx, service.Listen, true)
	if err != nil {
		return fmt.Errorf("log in: %w", err)
	}
	defer func() { _ = client.Logout(ctx) }()
	finder := find.NewFinder(client.Client)
	datacenter, err := finder.DefaultDatacenter(ctx)
	if err != nil {
		return err
	}
	finder.SetDatacenter(datacenter)
	folders, err := datacenter.Folders(ctx)
	if err != nil {
		return err
	}
	pools, err := finder.ResourcePoolList(ctx, "*")
	if err != nil {
		return err
	}
	store, err := finder.Datastore(ctx, "LocalDS_0")
	if err != nil {
		return err
	}
	for _, one := range vms {
		if err := create(ctx, folders.VmFolder, pools[0], store.Name(), one); err != nil {
			return fmt.Errorf("create %s: %w", one.Name, err)
		}
	}
	return nil
}

func create(ctx context.Context, folder *object.Folder, pool *object.ResourcePool, store string, v vm) error {
	spec := types.VirtualMachineConfigSpec{
		Name: v.Name, GuestId: string(types.VirtualMachineGuestOsIdentifierOtherLinux64Guest),
		NumCPUs: 1, MemoryMB: 1024, Version: "vmx-19",
		Files: &types.VirtualMachineFileInfo{VmPathName: "[" + store + "]"},
	}
	scsi := &types.ParaVirtualSCSIController{}
	scsi.Key, scsi.SharedBus = 1000, types.VirtualSCSISharingNoSharing
	spec.DeviceChange = append(spec.DeviceChange, &types.VirtualDeviceConfigSpec{
		Operation: types.VirtualDeviceConfigSpecOperationAdd, Device: scsi})
	for number, described := range v.Disks {
		unit := int32(number)
		backing := &types.VirtualDiskFlatVer2BackingInfo{
			DiskMode: string(types.VirtualDiskModePersistent), ThinProvisioned: types.NewBool(true)}
		backing.FileName = fmt.Sprintf("[%s] %s/disk%d.vmdk", store, v.Name, number)
		disk := &types.VirtualDisk{CapacityInBytes: described.SizeBytes, CapacityInKB: described.SizeBytes / 1024}
		disk.Key, disk.ControllerKey, disk.UnitNumber, disk.Backing = 2000+unit, 1000, &unit, backing
		spec.DeviceChange = append(spec.DeviceChange, &types.VirtualDeviceConfigSpec{
			Operation:     types.VirtualDeviceConfigSpecOperationAdd,
			FileOperation: types.VirtualDeviceConfigSpecFileOperationCreate, Device: disk})
	}
	network := &types.VirtualEthernetCardNetworkBackingInfo{}
	network.DeviceName = "VM Network"
	nic := &types.VirtualVmxnet3{}
	nic.Key, nic.Backing, nic.AddressType = 4000, network, string(types.VirtualEthernetCardMacTypeAssigned)
	nic.Connectable = &types.VirtualDeviceConnectInfo{StartConnected: true, AllowGuestControl: true}
	spec.DeviceChange = append(spec.DeviceChange, &types.VirtualDeviceConfigSpec{
		Operation: types.VirtualDeviceConfigSpecOperationAdd, Device: nic})
	task, err := folder.CreateVM(ctx, spec, pool, nil)
	if err != nil {
		return err
	}
	info, err := task.WaitForResult(ctx, nil)
	if err != nil {
		return err
	}
	if v.Power != "on" {
		return nil
	}
	made := object.NewVirtualMachine(folder.Client(), info.Result.(types.ManagedObjectReference))
	if task, err = made.PowerOn(ctx); err != nil {
		return err
	}
	return task.Wait(ctx)
}
