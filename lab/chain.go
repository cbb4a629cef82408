package main

import (
	"fmt"
	"os"
	"path"
	"regexp"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

var deltaName = regexp.MustCompile(`-\d{6}\.vmdk$`)

// nextDelta finds the first free x-00000N.vmdk beside file.
func (st *vmState) nextDelta(file string) (string, error) {
	base := strings.TrimSuffix(deltaName.ReplaceAllString(file, ".vmdk"), ".vmdk")
	for n := 1; n < 1000000; n++ {
		cand := fmt.Sprintf("%s-%06d.vmdk", base, n)
		if _, used := st.files[cand]; used {
			continue
		}
		p, err := st.site.hostPath(cand)
		if err != nil {
			return "", err
		}
		if _, err := os.Stat(p); os.IsNotExist(err) {
			return cand, nil
		}
	}
	return "", fmt.Errorf("no free delta name for %s: remove snapshots", file)
}

// grow adds a delta on top of parent: a complete image under a new name.
func (st *vmState) growChain(parent string, capacity int64) (string, error) {
	child, err := st.nextDelta(parent)
	if err != nil {
		return "", err
	}
	from, err := st.site.flatPath(parent)
	if err != nil {
		return "", err
	}
	to, err := st.site.flatPath(child)
	if err != nil {
		return "", err
	}
	if err := cloneFile(to, from); err != nil {
		return "", fmt.Errorf("freeze %s: %w", parent, err)
	}
	if err := st.site.writeDescriptor(child, parent, capacity); err != nil {
		return "", err
	}
	st.files[child] = parent
	return child, nil
}

// dropFile forgets and deletes one chain member.
func (st *vmState) dropFile(file string) error {
	delete(st.files, file)
	return st.site.removeDisk(file)
}

// sweep merges what no snapshot needs any more: a frozen file without a
// snapshot and with one child takes the child's content and place, one
// without children is deleted, one with several stays as their common base.
func (st *vmState) sweep() error {
	for again := true; again; {
		again = false
		for file := range st.files {
			if st.inUse(file) {
				continue
			}
			var kids []string
			for f, parent := range st.files {
				if parent == file {
					kids = append(kids, f)
				}
			}
			if len(kids) > 1 {
				continue
			}
			if len(kids) == 0 {
				if err := st.dropFile(file); err != nil {
					return err
				}
			} else if err := st.merge(file, kids[0]); err != nil {
				return err
			}
			again = true
			break // the map changed
		}
	}
	return nil
}

func (st *vmState) inUse(file string) bool {
	for _, d := range st.disks {
		if d.file == file {
			return true
		}
	}
	for _, s := range st.snaps {
		for _, d := range s.disks {
			if d.file == file {
				return true
			}
		}
	}
	return false
}

// merge renames child over file and redirects everybody who used child.
func (st *vmState) merge(file, child string) error {
	from, err := st.site.flatPath(child)
	if err != nil {
		return err
	}
	to, err := st.site.flatPath(file)
	if err != nil {
		return err
	}
	fi, err := os.Stat(from)
	if err != nil {
		return fmt.Errorf("merge %s into %s: %w", child, file, err)
	}
	if err := os.Rename(from, to); err != nil {
		return fmt.Errorf("merge %s into %s: %w", child, file, err)
	}
	if err := st.dropFile(child); err != nil {
		return err
	}
	for f, parent := range st.files {
		if parent == child {
			st.files[f] = file
		}
	}
	for _, d := range st.disks {
		if d.file == child {
			d.file = file
		}
	}
	for _, s := range st.snaps {
		for k, d := range s.disks {
			if d.file == child {
				d.file = file
				s.disks[k] = d
			}
		}
	}
	return st.site.writeDescriptor(file, st.files[file], fi.Size())
}

// parentBacking renders the chain below file as vSphere shows it.
func (st *vmState) parentBacking(file, uuid string, ds *types.ManagedObjectReference) *types.VirtualDiskFlatVer2BackingInfo {
	parent := st.files[file]
	if parent == "" {
		return nil
	}
	b := &types.VirtualDiskFlatVer2BackingInfo{
		DiskMode: string(types.VirtualDiskModePersistent), ThinProvisioned: types.NewBool(true), Uuid: uuid,
		Parent: st.parentBacking(parent, uuid, ds),
	}
	b.FileName, b.Datastore = parent, ds
	return b
}

// renderDisk gives a new device with the lab's facts in it. Devices are
// never changed in place: replies are encoded after the lock is released.
func (st *vmState) renderDisk(dev *types.VirtualDisk, file string, capacity int64, changeID string) *types.VirtualDisk {
	d := *dev
	d.CapacityInBytes, d.CapacityInKB = capacity, capacity/1024
	d.DiskObjectId = fmt.Sprintf("%s-%d", strings.TrimPrefix(st.ref.Value, "vm-"), d.Key)
	old, ok := d.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
	if !ok {
		return &d
	}
	b := *old
	b.FileName, b.ChangeId = file, changeID
	b.Parent = st.parentBacking(file, b.Uuid, b.Datastore)
	d.Backing = &b
	return &d
}

func replaceDisks(list []types.BaseVirtualDevice, f func(*types.VirtualDisk) *types.VirtualDisk) []types.BaseVirtualDevice {
	out := make([]types.BaseVirtualDevice, len(list))
	for i, dev := range list {
		out[i] = dev
		if d, ok := dev.(*types.VirtualDisk); ok {
			out[i] = f(d)
		}
	}
	return out
}

// render publishes files, capacities and change ids in the VM's and its
// snapshots' configurations. Call with the VM lock and mu held.
func (st *vmState) render(ctx *simulator.Context, vm *simulator.VirtualMachine) {
	devices := replaceDisks(vm.Config.Hardware.Device, func(d *types.VirtualDisk) *types.VirtualDisk {
		ds := st.disks[d.Key]
		if ds == nil {
			return d
		}
		id := ""
		if ds.track != nil {
			id = ds.track.changeID()
		}
		return st.renderDisk(d, ds.file, ds.capacity, id)
	})
	ctx.Update(vm, []types.PropertyChange{{Name: "config.hardware.device", Val: devices}})
	for ref, ss := range st.snaps {
		snap, ok := ctx.Map.Get(ref).(*simulator.VirtualMachineSnapshot)
		if !ok {
			continue
		}
		ctx.WithLock(snap, func() {
			list := replaceDisks(snap.Config.Hardware.Device, func(d *types.VirtualDisk) *types.VirtualDisk {
				sd, ok := ss.disks[d.Key]
				if !ok {
					return d
				}
				return st.renderDisk(d, sd.file, sd.capacity, sd.changeID)
			})
			ctx.Update(snap, []types.PropertyChange{{Name: "config.hardware.device", Val: list}})
		})
	}
	st.saveVMX(vm)
}

func baseName(file string) string { return path.Base(strings.TrimSuffix(file, ".vmdk")) }
