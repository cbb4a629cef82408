package main

import (
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

type tree = []types.VirtualMachineSnapshotTree

func cloneTree(in tree) tree {
	if in == nil {
		return nil
	}
	out := make(tree, len(in))
	for i, n := range in {
		n.ChildSnapshotList = cloneTree(n.ChildSnapshotList)
		out[i] = n
	}
	return out
}

func findNode(t tree, ref types.ManagedObjectReference) *types.VirtualMachineSnapshotTree {
	for i := range t {
		if t[i].Snapshot == ref {
			return &t[i]
		}
		if n := findNode(t[i].ChildSnapshotList, ref); n != nil {
			return n
		}
	}
	return nil
}

func parentOf(t tree, ref types.ManagedObjectReference) *types.ManagedObjectReference {
	for i := range t {
		for _, c := range t[i].ChildSnapshotList {
			if c.Snapshot == ref {
				p := t[i].Snapshot
				return &p
			}
		}
		if p := parentOf(t[i].ChildSnapshotList, ref); p != nil {
			return p
		}
	}
	return nil
}

func subtree(n types.VirtualMachineSnapshotTree) []types.ManagedObjectReference {
	out := []types.ManagedObjectReference{n.Snapshot}
	for _, c := range n.ChildSnapshotList {
		out = append(out, subtree(c)...)
	}
	return out
}

// pruneTree removes the given nodes; surviving children move up.
func pruneTree(t tree, gone map[types.ManagedObjectReference]bool) tree {
	var out tree
	for _, n := range t {
		kids := pruneTree(n.ChildSnapshotList, gone)
		if gone[n.Snapshot] {
			out = append(out, kids...)
			continue
		}
		n.ChildSnapshotList = kids
		out = append(out, n)
	}
	return out
}

// setTree publishes a new snapshot tree, and the children each snapshot
// object names.
func (o *operation) setTree(roots tree, current *types.ManagedObjectReference) {
	if len(roots) == 0 {
		o.ctx.Update(o.vm, []types.PropertyChange{{Name: "snapshot", Val: nil}, {Name: "rootSnapshot", Val: nil}})
		return
	}
	refs := make([]types.ManagedObjectReference, len(roots))
	for i, n := range roots {
		refs[i] = n.Snapshot
	}
	info := types.VirtualMachineSnapshotInfo{CurrentSnapshot: current, RootSnapshotList: roots}
	o.ctx.Update(o.vm, []types.PropertyChange{
		{Name: "snapshot", Val: info},
		{Name: "rootSnapshot", Val: refs},
	})
	o.setChildren(roots)
}

func (o *operation) setChildren(t tree) {
	for _, n := range t {
		kids := make([]types.ManagedObjectReference, len(n.ChildSnapshotList))
		for i, c := range n.ChildSnapshotList {
			kids[i] = c.Snapshot
		}
		if snap, ok := o.ctx.Map.Get(n.Snapshot).(*simulator.VirtualMachineSnapshot); ok {
			o.ctx.WithLock(snap, func() {
				o.ctx.Update(snap, []types.PropertyChange{{Name: "childSnapshot", Val: kids}})
			})
		}
		o.setChildren(n.ChildSnapshotList)
	}
}
