package main

import (
	"os"
	"strconv"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

const maxSnapshots = 32

// createSnapshot freezes the present content under its name and moves the
// VM to a copy; the snapshot's configuration is taken before the move.
func (o *operation) createSnapshot() (result, types.BaseMethodFault) {
	st := o.st
	st.mu.Lock()
	defer st.mu.Unlock()
	if len(st.snaps) >= maxSnapshots {
		return nil, &types.TooManySnapshotLevels{}
	}
	st.trackActive = st.trackWanted
	if fault := st.epoch(); fault != nil {
		return nil, fault
	}
	st.render(o.ctx, o.vm)
	fresh := map[int32]string{}
	for key, d := range st.disks {
		child, err := st.growChain(d.file, d.capacity)
		if err != nil {
			complain("snapshot of %s: %v", st.vmName(), err)
			for _, f := range fresh {
				_ = st.dropFile(f)
			}
			return nil, fileFault(d.file)
		}
		fresh[key] = child
	}
	res, fault := o.orig(o.task)
	ref, ok := res.(types.ManagedObjectReference)
	if fault != nil || !ok {
		for _, f := range fresh {
			_ = st.dropFile(f)
		}
		return res, fault
	}
	ss := &snapState{disks: map[int32]snapDisk{}, track: st.trackActive, vmsn: o.stateFile(ref)}
	for key, d := range st.disks {
		sd := snapDisk{file: d.file, capacity: d.capacity}
		if d.track != nil {
			sd.changeID = d.track.changeID()
		}
		ss.disks[key] = sd
		d.file = fresh[key]
	}
	st.snaps[ref] = ss
	st.render(o.ctx, o.vm)
	o.refreshStorage()
	return res, nil
}

// stateFile finds the .vmsn the simulator just made: its own bookkeeping of
// these files goes wrong later, so the lab remembers them itself.
func (o *operation) stateFile(ref types.ManagedObjectReference) string {
	for _, l := range o.vm.LayoutEx.Snapshot {
		for _, f := range o.vm.LayoutEx.File {
			if l.Key == ref && f.Key == l.DataKey {
				p, err := o.st.site.hostPath(f.Name)
				if err == nil {
					return p
				}
			}
		}
	}
	return ""
}

func (o *operation) refreshStorage() {
	o.detach()
	o.vm.RefreshStorageInfo(o.ctx, nil)
}

// epoch names the present content on all tracked disks, and starts or ends
// tracking as the configuration asks. Call with mu held.
func (st *vmState) epoch() types.BaseMethodFault {
	for _, d := range st.disks {
		flat, err := st.site.flatPath(d.file)
		if err == nil {
			switch {
			case !st.trackActive:
				d.track = nil
			case d.track == nil:
				d.track, err = newTracker(flat)
			default:
				err = d.track.mark(flat)
			}
		}
		if err != nil {
			complain("tracking of %s: %v", st.vmName(), err)
			return fileFault(d.file)
		}
	}
	return nil
}

// loseTracking gives every tracked disk a new life: old change ids answer
// FileFault from now on.
func (st *vmState) loseTracking() types.BaseMethodFault {
	for _, d := range st.disks {
		d.track = nil
	}
	return st.epoch()
}

func fileFault(file string) types.BaseMethodFault { return &types.FileFault{File: file} }

// snapExtension carries the snapshot methods the lab does itself.
type snapExtension struct {
	nopLock
	Self types.ManagedObjectReference
	vm   types.ManagedObjectReference
	site *site
}

func (e *snapExtension) Reference() types.ManagedObjectReference { return e.Self }

func (e *snapExtension) run(ctx *simulator.Context, name string, f func(*operation) (result, types.BaseMethodFault)) types.ManagedObjectReference {
	t := simulator.CreateTask(e.vm, name, func(t *simulator.Task) (types.AnyType, types.BaseMethodFault) {
		vm, ok := ctx.Map.Get(e.vm).(*simulator.VirtualMachine)
		st := e.site.state(e.vm)
		if !ok || st == nil {
			return nil, &types.ManagedObjectNotFound{Obj: e.vm}
		}
		return f(&operation{st: st, vm: vm, ctx: ctx, task: t, call: callOf(ctx)})
	})
	return t.Run(ctx)
}

func (e *snapExtension) RemoveSnapshotTask(ctx *simulator.Context, req *types.RemoveSnapshot_Task) soap.HasFault {
	ref := e.run(ctx, "removeSnapshot", func(o *operation) (result, types.BaseMethodFault) {
		return nil, o.remove(req.This, req.RemoveChildren)
	})
	return &methods.RemoveSnapshot_TaskBody{Res: &types.RemoveSnapshot_TaskResponse{Returnval: ref}}
}

func (e *snapExtension) RevertToSnapshotTask(ctx *simulator.Context, req *types.RevertToSnapshot_Task) soap.HasFault {
	ref := e.run(ctx, "revertToSnapshot", func(o *operation) (result, types.BaseMethodFault) {
		return nil, o.revert(req.This, req.SuppressPowerOn != nil && *req.SuppressPowerOn)
	})
	return &methods.RevertToSnapshot_TaskBody{Res: &types.RevertToSnapshot_TaskResponse{Returnval: ref}}
}

// remove takes one snapshot, or a whole subtree, out of the tree and merges
// the files that only it needed.
func (o *operation) remove(ref types.ManagedObjectReference, children bool) types.BaseMethodFault {
	o.st.mu.Lock()
	defer o.st.mu.Unlock()
	if o.vm.Snapshot == nil || findNode(o.vm.Snapshot.RootSnapshotList, ref) == nil {
		return &types.ManagedObjectNotFound{Obj: ref}
	}
	gone := []types.ManagedObjectReference{ref}
	if children {
		gone = subtree(*findNode(o.vm.Snapshot.RootSnapshotList, ref))
	}
	return o.removeRefs(gone)
}

func (o *operation) removeAll() (result, types.BaseMethodFault) {
	o.st.mu.Lock()
	defer o.st.mu.Unlock()
	if o.vm.Snapshot == nil {
		return nil, nil
	}
	var gone []types.ManagedObjectReference
	for _, n := range o.vm.Snapshot.RootSnapshotList {
		gone = append(gone, subtree(n)...)
	}
	return nil, o.removeRefs(gone)
}

func (o *operation) removeRefs(gone []types.ManagedObjectReference) types.BaseMethodFault {
	st := o.st
	set := map[types.ManagedObjectReference]bool{}
	for _, ref := range gone {
		set[ref] = true
	}
	old := o.vm.Snapshot
	current := old.CurrentSnapshot
	for current != nil && set[*current] {
		current = parentOf(old.RootSnapshotList, *current)
	}
	for _, ref := range gone {
		if ss := st.snaps[ref]; ss != nil && ss.vmsn != "" {
			_ = os.Remove(ss.vmsn)
		}
		delete(st.snaps, ref)
	}
	err := st.sweep()
	o.setTree(pruneTree(old.RootSnapshotList, set), current)
	for _, ref := range gone {
		o.ctx.Map.Remove(o.ctx, ref)
	}
	if o.vm.LayoutEx != nil {
		o.vm.LayoutEx.Snapshot = keepLayouts(o.vm.LayoutEx.Snapshot, set)
	}
	st.render(o.ctx, o.vm)
	o.refreshStorage()
	if err != nil {
		complain("merge on %s: %v", st.vmName(), err)
		return fileFault("")
	}
	return nil
}

func keepLayouts(in []types.VirtualMachineFileLayoutExSnapshotLayout, gone map[types.ManagedObjectReference]bool) (out []types.VirtualMachineFileLayoutExSnapshotLayout) {
	for _, l := range in {
		if !gone[l.Key] {
			out = append(out, l)
		}
	}
	return out
}

func nextVersion() string { return strconv.FormatInt(time.Now().UnixNano(), 10) }
