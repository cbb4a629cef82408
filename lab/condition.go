package main

import (
	"net/http"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"
)

// condition is what a VM may be like besides being on or off. Only what is
// named changes.
type condition struct {
	Template      *bool   `json:"template"`
	Connection    *string `json:"connection_state"`
	Consolidation *bool   `json:"consolidation_needed"`
	Fault         *bool   `json:"fault_tolerance"`
	VTPM          bool    `json:"vtpm"`
	Passthrough   bool    `json:"passthrough"`
	// Of the first disk:
	DiskMode  string `json:"disk_mode"`
	Sharing   string `json:"sharing"`
	Encrypted bool   `json:"encrypted"`
	RDM       string `json:"rdm"`       // physicalMode or virtualMode
	LinkedTo  string `json:"linked_to"` // file of another VM that the disk stands on
}

// serveCondition shows a VM as it would look in a less friendly site.
func (st *vmState) serveCondition(r *http.Request) (any, error) {
	var in condition
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	ctx := st.site.freshContext()
	vm, ok := ctx.Map.Get(st.ref).(*simulator.VirtualMachine)
	if !ok {
		return nil, failed(404, "%s is gone", st.vmName())
	}
	ctx.WithLock(vm, func() {
		var changes []types.PropertyChange
		set := func(name string, val any) { changes = append(changes, types.PropertyChange{Name: name, Val: val}) }
		if in.Template != nil {
			set("config.template", *in.Template)
		}
		if in.Connection != nil {
			set("runtime.connectionState", types.VirtualMachineConnectionState(*in.Connection))
		}
		if in.Consolidation != nil {
			set("runtime.consolidationNeeded", *in.Consolidation)
		}
		if in.Fault != nil && *in.Fault {
			set("config.ftInfo", &types.FaultToleranceConfigInfo{Role: 1, InstanceUuids: []string{}, ConfigPaths: []string{}})
		}
		set("config.hardware.device", in.devices(vm.Config.Hardware.Device))
		ctx.Update(vm, changes)
	})
	return reply{"ok": true}, nil
}

// devices gives the list with what the condition adds and changes; a reply
// may still be encoding the old one.
func (c condition) devices(old []types.BaseVirtualDevice) []types.BaseVirtualDevice {
	var out []types.BaseVirtualDevice
	first := true
	for _, device := range old {
		if disk, ok := device.(*types.VirtualDisk); ok && first {
			first = false
			device = c.disk(*disk)
		}
		out = append(out, device)
	}
	if c.VTPM {
		out = append(out, &types.VirtualTPM{VirtualDevice: types.VirtualDevice{Key: 11000}})
	}
	if c.Passthrough {
		out = append(out, &types.VirtualPCIPassthrough{VirtualDevice: types.VirtualDevice{
			Key: 13000, DeviceInfo: &types.Description{Label: "PCI device 0", Summary: "a card of the host"}}})
	}
	return out
}

func (c condition) disk(disk types.VirtualDisk) *types.VirtualDisk {
	flat, ok := disk.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
	if !ok {
		return &disk
	}
	backing := *flat
	disk.Backing = &backing
	if c.DiskMode != "" {
		backing.DiskMode = c.DiskMode
	}
	if c.Sharing != "" {
		backing.Sharing = c.Sharing
	}
	if c.Encrypted {
		backing.KeyId = &types.CryptoKeyId{KeyId: "a key", ProviderId: &types.KeyProviderId{Id: "a provider"}}
	}
	if c.LinkedTo != "" {
		parent := backing
		parent.Parent, parent.FileName = nil, c.LinkedTo
		backing.Parent = &parent
	}
	if c.RDM != "" {
		disk.Backing = &types.VirtualDiskRawDiskMappingVer1BackingInfo{
			VirtualDeviceFileBackingInfo: backing.VirtualDeviceFileBackingInfo,
			DeviceName:                   "vml.0200000000", CompatibilityMode: c.RDM, DiskMode: backing.DiskMode,
		}
	}
	return &disk
}

// serveHost puts every host of the site into maintenance mode, or out of it.
func (s *site) serveHost(r *http.Request) (any, error) {
	var in struct {
		Maintenance bool `json:"maintenance"`
	}
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	ctx := s.freshContext()
	for _, e := range ctx.Map.All("HostSystem") {
		if host, ok := e.(*simulator.HostSystem); ok {
			ctx.WithLock(host, func() {
				ctx.Update(host, []types.PropertyChange{{Name: "runtime.inMaintenanceMode", Val: in.Maintenance}})
			})
		}
	}
	return reply{"ok": true, "maintenance": in.Maintenance}, nil
}

// serveReregister takes a VM out of the inventory and in again, as people do
// to repair it: the same VM, with the same files, under another reference.
func (st *vmState) serveReregister(*http.Request) (any, error) {
	s, name := st.site, st.vmName()
	ctx := s.freshContext()
	vm, ok := ctx.Map.Get(st.ref).(*simulator.VirtualMachine)
	if !ok {
		return nil, failed(404, "%s is gone", name)
	}
	var path string
	ctx.WithLock(vm, func() { path = vm.Config.Files.VmPathName })
	if _, err := methods.UnregisterVM(internal("control"), s.client, &types.UnregisterVM{This: st.ref}); err != nil {
		return nil, failed(409, "unregister: %v", err)
	}
	pool := s.pool.Reference()
	res, err := methods.RegisterVM_Task(internal("control"), s.client, &types.RegisterVM_Task{
		This: s.folders.VmFolder.Reference(), Path: path, Name: name, Pool: &pool})
	if err != nil {
		return nil, failed(409, "register: %v", err)
	}
	out, err := s.await(res.Returnval)
	if err != nil {
		return nil, failed(409, "%v", err)
	}
	ref, _ := out.(types.ManagedObjectReference)
	return reply{"ok": true, "moref": ref.Value}, nil
}
