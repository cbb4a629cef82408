package main

import (
	"os"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

type snapshotView struct {
	Name        string         `json:"name"`
	Description string         `json:"description"`
	Moref       string         `json:"moref"`
	State       string         `json:"state"`
	Current     bool           `json:"current"`
	Children    []snapshotView `json:"children"`
}

type diskView struct {
	Index    int      `json:"index"`
	Key      int32    `json:"key"`
	File     string   `json:"file"`
	Flat     string   `json:"flat_path"`
	Capacity int64    `json:"capacity_bytes"`
	Chain    []string `json:"chain"` // live file first, base last
	ChangeID string   `json:"change_id,omitempty"`
}

// state is everything a test may want to compare before and after.
func (l *lab) state() any {
	sites := reply{}
	for _, s := range l.sites {
		vms := reply{}
		ctx := s.freshContext()
		for _, e := range s.ctx.Map.All("VirtualMachine") {
			if vm, ok := s.ctx.Map.Get(e.Reference()).(*simulator.VirtualMachine); ok {
				ctx.WithLock(vm, func() { vms[vm.Name] = s.vmView(vm) })
			}
		}
		sites[s.name] = reply{"vms": vms, "instance_uuid": s.uuid, "url": s.url, "page_size": s.pageSize.Load()}
	}
	return reply{"sites": sites}
}

// vmView needs the VM's lock held.
func (s *site) vmView(vm *simulator.VirtualMachine) reply {
	custom := map[string]string{}
	for _, v := range vm.CustomValue {
		if sv, ok := v.(*types.CustomFieldStringValue); ok {
			name := ""
			for _, f := range vm.AvailableField {
				if f.Key == sv.Key {
					name = f.Name
				}
			}
			custom[name] = sv.Value
		}
	}
	out := reply{
		"moref": vm.Self.Value, "power": string(vm.Runtime.PowerState), "custom_values": custom,
		"tracking":    vm.Config.ChangeTrackingEnabled != nil && *vm.Config.ChangeTrackingEnabled,
		"memory_mb":   vm.Config.Hardware.MemoryMB,
		"cpus":        vm.Config.Hardware.NumCPU,
		"annotation":  vm.Config.Annotation,
		"vmx":         vm.Config.Files.VmPathName,
		"snapshots":   []snapshotView{},
		"files":       []string{},
		"disks":       []diskView{},
		"boot_time":   vm.Runtime.BootTime,
		"uuid":        vm.Config.Uuid,
		"instance_id": vm.Config.InstanceUuid,
	}
	if vm.Snapshot != nil {
		out["snapshots"] = treeView(vm.Snapshot.RootSnapshotList, vm.Snapshot.CurrentSnapshot)
	}
	st := s.state(vm.Self)
	if st == nil {
		return out
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	disks := []diskView{}
	for _, d := range st.ordered() {
		v := diskView{Index: d.index, Key: d.key, File: d.file, Capacity: d.capacity}
		v.Flat, _ = s.flatPath(d.file)
		for f := d.file; f != ""; f = st.files[f] {
			v.Chain = append(v.Chain, f)
		}
		if d.track != nil {
			v.ChangeID = d.track.changeID()
		}
		disks = append(disks, v)
	}
	out["disks"] = disks
	out["tracking_active"] = st.trackActive
	out["tools"] = st.tools
	out["guest"] = reply{"records": st.guest.records.Load(), "writing": st.guest.stopCh != nil, "interval_ms": st.guest.interval.Milliseconds(),
		"ignore_shutdown": st.ignore, "shutdown_delay_ms": st.delay.Milliseconds()}
	out["locked"] = st.locked
	if host, err := s.hostPath(vm.Config.Files.VmPathName); err == nil {
		out["files"] = listDir(host)
	}
	return out
}

func treeView(t tree, current *types.ManagedObjectReference) []snapshotView {
	out := []snapshotView{}
	for _, n := range t {
		out = append(out, snapshotView{Name: n.Name, Description: n.Description, Moref: n.Snapshot.Value, State: string(n.State),
			Current: current != nil && *current == n.Snapshot, Children: treeView(n.ChildSnapshotList, current)})
	}
	return out
}

// listDir names the files beside a VM's configuration.
func listDir(vmx string) []string {
	out := []string{}
	entries, err := os.ReadDir(dirOf(vmx))
	if err != nil {
		return out
	}
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}
