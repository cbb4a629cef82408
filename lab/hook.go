package main

import (
	"strings"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// hook stands in for the task manager in the simulator's list of object
// watchers. It sees every task before it runs and replaces its body.
type hook struct {
	*simulator.TaskManager
	site *site
}

// operation is one task on one VM.
type operation struct {
	st   *vmState
	vm   *simulator.VirtualMachine
	ctx  *simulator.Context
	task *simulator.Task
	call *call
	orig func(*simulator.Task) (types.AnyType, types.BaseMethodFault)
}

type result = types.AnyType

var operations = map[string]func(*operation) (result, types.BaseMethodFault){
	"VirtualMachine.createSnapshotEx":   (*operation).createSnapshot,
	"VirtualMachine.revertSnapshot":     (*operation).revertToCurrent,
	"VirtualMachine.RemoveAllSnapshots": (*operation).removeAll,
	"VirtualMachine.powerOn":            (*operation).powerOn,
	"VirtualMachine.powerOff":           (*operation).powerOff,
	"VirtualMachine.suspend":            (*operation).suspend,
	"VirtualMachine.shutdownGuest":      (*operation).shutdownGuest,
	"VirtualMachine.reconfigVm":         (*operation).reconfigure,
	"VirtualMachine.rename":             (*operation).rename,
	"VirtualMachine.destroy":            (*operation).destroy,
}

func (h *hook) PutObject(ctx *simulator.Context, obj mo.Reference) {
	t, ok := obj.(*simulator.Task)
	if !ok || t.Info.Entity == nil {
		h.TaskManager.PutObject(ctx, obj)
		return
	}
	tctx := taskContext(t)
	if tctx == nil {
		h.TaskManager.PutObject(ctx, obj)
		return
	}
	if tctx.Session != nil && tctx.Session.UserName != "" {
		t.Info.Reason = &types.TaskReasonUser{UserName: tctx.Session.UserName}
	}
	switch t.Info.DescriptionId {
	case "Folder.createVm", "Folder.registerVm":
		h.folderTask(ctx, tctx, t)
		return
	case "VirtualDiskManager.createVirtualDisk":
		h.diskTask(t)
	}
	st := h.site.state(*t.Info.Entity)
	if st == nil {
		h.TaskManager.PutObject(ctx, obj)
		return
	}
	h.vmTask(ctx, tctx, t, st)
}

func (h *hook) RemoveObject(_ *simulator.Context, ref types.ManagedObjectReference) {
	if ref.Type != "VirtualMachine" {
		return
	}
	h.site.mu.Lock()
	st := h.site.vms[ref]
	delete(h.site.vms, ref)
	h.site.mu.Unlock()
	if st != nil {
		st.stopGuest()
	}
}

func (h *hook) vmTask(ctx, tctx *simulator.Context, t *simulator.Task, st *vmState) {
	c := callOf(tctx)
	if c.name == "CreateSnapshot_Task" {
		t.Info.DescriptionId, t.Info.Name = "VirtualMachine.createSnapshot", "CreateSnapshot_Task"
	}
	t.Info.EntityName = st.vmName()
	t.Info.Cancelable = c.taskDelay != nil // the work itself is too short to stop
	body := operations[t.Info.DescriptionId]
	if t.Info.DescriptionId == "VirtualMachine.createSnapshot" {
		body = (*operation).createSnapshot
	}
	shutdown := t.Info.DescriptionId == "VirtualMachine.shutdownGuest"
	nested := false
	var blocker *types.ManagedObjectReference
	if !shutdown {
		nested, blocker = st.claim(t, tctx)
	}
	if !shutdown && !nested {
		unlock := tctx.Map.AcquireLock(tctx, st.ref)
		h.TaskManager.PutObject(ctx, t)
		unlock()
	}
	vmRef := *t.Info.Entity
	orig := t.Execute
	// Task.Run keeps the lock of Info.Entity from now until the end. A dummy
	// in its place leaves the VM readable while its task waits.
	dummy := types.ManagedObjectReference{Type: "VirtualMachine", Value: "lab-" + t.Self.Value}
	t.Info.Entity = &dummy
	h.site.swaps.add(1)
	t.Execute = func(t *simulator.Task) (types.AnyType, types.BaseMethodFault) {
		tctx.WithLock(t, func() { t.Info.Entity = &vmRef })
		h.site.swaps.add(-1)
		if !nested && !shutdown {
			end := h.site.clock.begin()
			defer end()
		}
		if blocker != nil {
			return nil, &types.TaskInProgress{Task: *blocker}
		}
		if !shutdown && !nested {
			defer st.release(t)
		}
		if !nested {
			if fault := h.inject(tctx, t, c); fault != nil {
				return nil, fault
			}
		}
		if t.Info.DescriptionId == "VirtualMachine.powerOn" && !nested {
			if fault := st.ask(tctx); fault != nil {
				return nil, fault
			}
		}
		if shutdown && !st.awaitShutdown() {
			return nil, nil
		}
		unlock := tctx.Map.AcquireLock(tctx, vmRef)
		defer unlock()
		vm, ok := tctx.Map.Get(vmRef).(*simulator.VirtualMachine)
		if !ok {
			return nil, &types.ManagedObjectNotFound{Obj: vmRef}
		}
		o := &operation{st: st, vm: vm, ctx: tctx, task: t, call: c, orig: orig}
		o.detach()
		if body == nil {
			return orig(t)
		}
		return body(o)
	}
}

// claim makes t the VM's one running task, or names the task in its way.
// A task started by the running one shares its context.
func (st *vmState) claim(t *simulator.Task, ctx *simulator.Context) (nested bool, blocker *types.ManagedObjectReference) {
	st.busyMu.Lock()
	defer st.busyMu.Unlock()
	switch {
	case st.busy == nil:
		st.busy, st.busyBy = t, ctx
	case st.busyBy == ctx:
		return true, nil
	default:
		ref := st.busy.Self
		return false, &ref
	}
	return false, nil
}

func (st *vmState) release(t *simulator.Task) {
	st.busyMu.Lock()
	defer st.busyMu.Unlock()
	if st.busy == t {
		st.busy, st.busyBy = nil, nil
	}
}

// inject carries out task-delay and task-fault rules. The delay ends early
// when somebody cancels the task.
func (h *hook) inject(ctx *simulator.Context, t *simulator.Task, c *call) types.BaseMethodFault {
	fault := c.taskFault
	r := c.taskDelay
	c.taskFault, c.taskDelay = nil, nil // once per call
	if r != nil {
		total := time.Duration(r.Seconds * float64(time.Second))
		for start := time.Now(); time.Since(start) < total; time.Sleep(10 * time.Millisecond) {
			cancelled := false
			done := int32(100 * time.Since(start) / total)
			ctx.WithLock(t, func() {
				cancelled = t.Info.Cancelled
				if !cancelled && done >= t.Info.Progress+5 {
					ctx.Update(t, []types.PropertyChange{{Name: "info.progress", Val: done}})
				}
			})
			if cancelled {
				return &types.RequestCanceled{}
			}
		}
	}
	return fault
}

// detach replaces what the simulator changes in place with copies, because
// an earlier reply may still be encoding the old objects.
func (o *operation) detach() {
	vm := o.vm
	cfg := *vm.Config
	cfg.Hardware.Device = append([]types.BaseVirtualDevice(nil), cfg.Hardware.Device...)
	vm.Config = &cfg
	if vm.Guest != nil {
		g := *vm.Guest
		g.Net = append([]types.GuestNicInfo(nil), g.Net...)
		vm.Guest = &g
	}
	if vm.Summary.Guest != nil {
		g := *vm.Summary.Guest
		vm.Summary.Guest = &g
	}
	if vm.LayoutEx != nil {
		l := *vm.LayoutEx
		l.File = append([]types.VirtualMachineFileLayoutExFileInfo(nil), l.File...)
		l.Snapshot = append([]types.VirtualMachineFileLayoutExSnapshotLayout(nil), l.Snapshot...)
		vm.LayoutEx = &l
	}
	if vm.Layout != nil {
		l := *vm.Layout
		l.Snapshot = append([]types.VirtualMachineFileLayoutSnapshotLayout(nil), l.Snapshot...)
		vm.Layout = &l
	}
	if vm.Storage != nil {
		s := *vm.Storage
		vm.Storage = &s
	}
	if vm.Snapshot != nil {
		s := *vm.Snapshot
		s.RootSnapshotList = cloneTree(s.RootSnapshotList)
		vm.Snapshot = &s
	}
}

// diskTask gives a disk made by the VirtualDiskManager its bytes.
func (h *hook) diskTask(t *simulator.Task) {
	orig := t.Execute
	t.Execute = func(t *simulator.Task) (types.AnyType, types.BaseMethodFault) {
		res, fault := orig(t)
		if name, ok := res.(string); ok && fault == nil && strings.HasSuffix(name, ".vmdk") {
			h.site.fillFromDescriptor(name)
		}
		return res, fault
	}
}
