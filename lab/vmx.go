package main

import (
	"bufio"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// vmxFile is the configuration file of a VM as RegisterVM reads it.
type vmxFile struct {
	values map[string]string
	dir    string // "[ds] folder"
}

// saveVMX writes the present configuration; RegisterVM reads it back.
func (st *vmState) saveVMX(vm *simulator.VirtualMachine) {
	host, err := st.site.hostPath(vm.Config.Files.VmPathName)
	if err != nil || filepath.Ext(host) != ".vmx" {
		return
	}
	v := vmxValues(vm)
	keys := make([]string, 0, len(v))
	for k := range v {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	var b strings.Builder
	for _, k := range keys {
		fmt.Fprintf(&b, "%s = \"%s\"\n", k, escapeVMX(v[k]))
	}
	tmp := host + ".tmp"
	if err := os.WriteFile(tmp, []byte(b.String()), 0o600); err != nil {
		if !os.IsNotExist(err) { // the folder is gone while a VM is destroyed
			complain("write vmx: %v", err)
		}
		return
	}
	if err := os.Rename(tmp, host); err != nil {
		complain("write vmx: %v", err)
	}
}

func vmxValues(vm *simulator.VirtualMachine) map[string]string {
	c := vm.Config
	v := map[string]string{
		".encoding": "UTF-8", "config.version": "8", "virtualHW.version": strings.TrimPrefix(c.Version, "vmx-"),
		"displayName": vm.Name, "guestOS": c.GuestId, "firmware": c.Firmware, "annotation": c.Annotation,
		"memSize": strconv.Itoa(int(c.Hardware.MemoryMB)), "numvcpus": strconv.Itoa(int(c.Hardware.NumCPU)),
		"uuid.bios": c.Uuid, "vc.uuid": c.InstanceUuid,
	}
	if c.ChangeTrackingEnabled != nil && *c.ChangeTrackingEnabled {
		v["ctkEnabled"] = "TRUE"
	}
	for _, x := range c.ExtraConfig {
		o := x.GetOptionValue()
		if s, ok := o.Value.(string); ok && o.Key != "govcsim" {
			v[o.Key] = s
		}
	}
	bus := map[int32]int32{}
	for _, dev := range c.Hardware.Device {
		if s, ok := dev.(types.BaseVirtualSCSIController); ok {
			n := s.GetVirtualSCSIController().BusNumber
			bus[dev.GetVirtualDevice().Key] = n
			p := fmt.Sprintf("scsi%d.", n)
			v[p+"present"] = "TRUE"
			v[p+"virtualDev"] = object.VirtualDeviceList{}.Type(dev)
		}
	}
	nic := 0
	for _, dev := range c.Hardware.Device {
		d := dev.GetVirtualDevice()
		switch x := dev.(type) {
		case *types.VirtualDisk:
			n, ok := bus[d.ControllerKey]
			b, file := x.Backing.(types.BaseVirtualDeviceFileBackingInfo)
			if !ok || !file || d.UnitNumber == nil {
				continue
			}
			p := fmt.Sprintf("scsi%d:%d.", n, *d.UnitNumber)
			v[p+"present"], v[p+"deviceType"] = "TRUE", "scsi-hardDisk"
			name := b.GetVirtualDeviceFileBackingInfo().FileName
			var dp, vmx object.DatastorePath
			if dp.FromString(name) && vmx.FromString(c.Files.VmPathName) && path.Dir(dp.Path) == path.Dir(vmx.Path) {
				name = path.Base(dp.Path)
			}
			v[p+"fileName"] = name
		case types.BaseVirtualEthernetCard:
			e := x.GetVirtualEthernetCard()
			p := fmt.Sprintf("ethernet%d.", nic)
			nic++
			v[p+"present"] = "TRUE"
			v[p+"virtualDev"] = strings.ToLower(strings.TrimPrefix((object.VirtualDeviceList{}).TypeName(dev), "Virtual"))
			v[p+"address"], v[p+"addressType"] = e.MacAddress, e.AddressType
			switch n := d.Backing.(type) {
			case *types.VirtualEthernetCardNetworkBackingInfo:
				v[p+"networkName"] = n.DeviceName
			case *types.VirtualEthernetCardDistributedVirtualPortBackingInfo:
				v[p+"dvs.switchId"], v[p+"dvs.portgroupId"] = n.Port.SwitchUuid, n.Port.PortgroupKey
			}
			if d.Connectable != nil && !d.Connectable.StartConnected {
				v[p+"startConnected"] = "FALSE"
			}
		}
	}
	return v
}

var vmxEscape = strings.NewReplacer("|", "|7C", "\"", "|22", "\n", "|0A", "\r", "|0D")
var vmxUnescape = strings.NewReplacer("|7C", "|", "|22", "\"", "|0A", "\n", "|0D", "\r")

func escapeVMX(s string) string { return vmxEscape.Replace(s) }

func readVMX(host string) (*vmxFile, error) {
	f, err := os.Open(host)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out := &vmxFile{values: map[string]string{}}
	sc := bufio.NewScanner(f)
	sc.Buffer(make([]byte, 64<<10), 1<<20)
	for sc.Scan() {
		line := strings.TrimSpace(sc.Text())
		key, val, ok := strings.Cut(line, "=")
		if !ok || strings.HasPrefix(line, "#") {
			continue
		}
		out.values[strings.TrimSpace(key)] = vmxUnescape.Replace(strings.Trim(strings.TrimSpace(val), "\""))
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("read %s: %w", host, err)
	}
	return out, nil
}
