package main

import (
	"fmt"
	"path"
	"regexp"
	"sort"
	"strconv"
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"
)

var vmxDevice = regexp.MustCompile(`^(scsi\d+(:\d+)?|ethernet\d+)\.|^(\.encoding|config\.version|virtualHW\.version|displayName|guestOS|firmware|annotation|memSize|numvcpus|uuid\.bios|vc\.uuid|ctkEnabled)$`)

// applyVMX gives a registered VM the hardware its file names. The simulator
// itself would leave it without disks and network cards.
func (s *site) applyVMX(ctx *simulator.Context, vm *simulator.VirtualMachine, f *vmxFile) types.BaseMethodFault {
	f.dir = path.Dir(vm.Config.Files.VmPathName)
	spec := f.spec(s)
	res := vm.ReconfigVMTask(ctx, &types.ReconfigVM_Task{This: vm.Self, Spec: spec})
	body, ok := res.(*methods.ReconfigVM_TaskBody)
	if !ok || body.Res == nil {
		return &types.InvalidVmConfig{Property: "vmx"}
	}
	task, ok := ctx.Map.Get(body.Res.Returnval).(*simulator.Task)
	if !ok {
		return &types.InvalidVmConfig{Property: "vmx"}
	}
	task.Wait()
	if task.Info.Error != nil {
		return task.Info.Error.Fault
	}
	return nil
}

func (f *vmxFile) number(key string) int64 {
	n, _ := strconv.ParseInt(f.values[key], 10, 64)
	return n
}

func (f *vmxFile) spec(s *site) types.VirtualMachineConfigSpec {
	v := f.values
	spec := types.VirtualMachineConfigSpec{
		GuestId: v["guestOS"], Firmware: v["firmware"], Annotation: v["annotation"],
		MemoryMB: f.number("memSize"), NumCPUs: int32(f.number("numvcpus")),
		Uuid: v["uuid.bios"], InstanceUuid: v["vc.uuid"],
	}
	if strings.EqualFold(v["ctkEnabled"], "TRUE") {
		spec.ChangeTrackingEnabled = types.NewBool(true)
	}
	keys := make([]string, 0, len(v))
	for k := range v {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		if !vmxDevice.MatchString(k) {
			spec.ExtraConfig = append(spec.ExtraConfig, &types.OptionValue{Key: k, Value: v[k]})
		}
	}
	add := func(d types.BaseVirtualDevice) {
		spec.DeviceChange = append(spec.DeviceChange, &types.VirtualDeviceConfigSpec{Operation: types.VirtualDeviceConfigSpecOperationAdd, Device: d})
	}
	for bus := range int32(4) {
		if !strings.EqualFold(v[fmt.Sprintf("scsi%d.present", bus)], "TRUE") {
			continue
		}
		ctl, err := object.SCSIControllerTypes().CreateSCSIController(v[fmt.Sprintf("scsi%d.virtualDev", bus)])
		if err != nil {
			ctl, _ = object.SCSIControllerTypes().CreateSCSIController("pvscsi")
		}
		c := ctl.(types.BaseVirtualSCSIController).GetVirtualSCSIController()
		c.BusNumber, c.Key = bus, 1000+bus
		add(ctl)
		for unit := range int32(16) {
			p := fmt.Sprintf("scsi%d:%d.", bus, unit)
			name := v[p+"fileName"]
			if name == "" || !strings.EqualFold(v[p+"present"], "TRUE") || !strings.HasSuffix(name, ".vmdk") {
				continue
			}
			if !strings.HasPrefix(name, "[") {
				name = f.dir + "/" + name
			}
			add(f.disk(s, name, c.Key, bus, unit))
		}
	}
	for i := range int32(10) {
		if d := f.nic(fmt.Sprintf("ethernet%d.", i), 4000+i); d != nil {
			add(d)
		}
	}
	return spec
}

func (f *vmxFile) disk(s *site, name string, controller, bus, unit int32) types.BaseVirtualDevice {
	b := &types.VirtualDiskFlatVer2BackingInfo{DiskMode: string(types.VirtualDiskModePersistent), ThinProvisioned: types.NewBool(true)}
	b.FileName = name
	d := &types.VirtualDisk{}
	d.Key, d.ControllerKey, d.UnitNumber, d.Backing = 2000+16*bus+unit, controller, types.NewInt32(unit), b
	if flat, err := s.flatPath(name); err == nil {
		d.CapacityInBytes = fileSize(flat)
		d.CapacityInKB = d.CapacityInBytes / 1024
	}
	return d
}

func (f *vmxFile) nic(p string, key int32) types.BaseVirtualDevice {
	v := f.values
	if !strings.EqualFold(v[p+"present"], "TRUE") {
		return nil
	}
	var backing types.BaseVirtualDeviceBackingInfo
	if pg := v[p+"dvs.portgroupId"]; pg != "" {
		backing = &types.VirtualEthernetCardDistributedVirtualPortBackingInfo{
			Port: types.DistributedVirtualSwitchPortConnection{SwitchUuid: v[p+"dvs.switchId"], PortgroupKey: pg}}
	} else {
		b := &types.VirtualEthernetCardNetworkBackingInfo{}
		b.DeviceName = v[p+"networkName"]
		backing = b
	}
	dev, err := object.EthernetCardTypes().CreateEthernetCard(v[p+"virtualDev"], backing)
	if err != nil {
		dev, _ = object.EthernetCardTypes().CreateEthernetCard("vmxnet3", backing)
	}
	e := dev.(types.BaseVirtualEthernetCard).GetVirtualEthernetCard()
	e.Key, e.MacAddress, e.AddressType = key, v[p+"address"], v[p+"addressType"]
	e.Connectable = &types.VirtualDeviceConnectInfo{AllowGuestControl: true, StartConnected: !strings.EqualFold(v[p+"startConnected"], "FALSE")}
	return dev
}
