package main

import (
	"context"
	"reflect"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

type ctxKey int

const (
	keyCall     ctxKey = iota // *call: the request a task came from
	keyInternal               // set on the lab's own calls: faults do not apply
)

// call is one SOAP request, carried to the task it starts.
type call struct {
	name      string
	taskFault types.BaseMethodFault
	taskDelay *faultRule
	purpose   string        // why the lab itself calls
	body      types.AnyType // the request; the simulator uses this very object
}

func callOf(ctx *simulator.Context) *call {
	if ctx != nil && ctx.Context != nil {
		if c, ok := ctx.Value(keyCall).(*call); ok {
			return c
		}
	}
	return &call{}
}

// taskContext reads the context under which a task holds its locks. The
// simulator does not export it, and a task's lock belongs to that very
// pointer: any other context would deadlock.
func taskContext(t *simulator.Task) *simulator.Context {
	return (*simulator.Context)(reflect.ValueOf(t).Elem().FieldByName("ctx").UnsafePointer())
}

// freshContext is for work outside a request: a lock belongs to a context
// pointer, so two goroutines must never share one.
func (s *site) freshContext() *simulator.Context {
	c := *s.ctx
	return &c
}

// handler sees every SOAP call before the simulator dispatches it.
func (s *site) handler(ctx *simulator.Context, m *simulator.Method) (mo.Reference, types.BaseMethodFault) {
	parent := ctx.Context
	if parent == nil {
		parent = context.Background()
	}
	c := &call{name: m.Name, body: m.Body}
	if why, ok := parent.Value(keyInternal).(string); ok {
		c.purpose = why
	} else if fault := s.lab.faults.onCall(s, m, c); fault != nil {
		return nil, fault
	}
	ctx.Context = context.WithValue(parent, keyCall, c)
	if s.plain || ctx.Session == nil {
		return nil, nil
	}
	if c.purpose == "" {
		if fault := s.refuse(m); fault != nil {
			return nil, fault
		}
	}
	if fault := s.precheck(ctx, m); fault != nil {
		return nil, fault
	}
	if ext := s.extension(m); ext != nil {
		// The per-request copy of the session wins over the inventory.
		reg := simulator.NewRegistry()
		reg.Put(ext)
		ctx.Session.Registry = reg
		return ext, nil
	}
	return nil, nil
}

// precheck answers what real vCenter refuses and the simulator accepts.
func (s *site) precheck(ctx *simulator.Context, m *simulator.Method) types.BaseMethodFault {
	switch m.Name {
	case "ShutdownGuest":
		st := s.state(m.This)
		if st == nil {
			return nil
		}
		st.mu.Lock()
		defer st.mu.Unlock()
		if st.running && !st.tools {
			return &types.ToolsUnavailable{}
		}
	case "CancelTask":
		// The simulator would show a task as failed that still does its work.
		t, ok := ctx.Map.Get(m.This).(*simulator.Task)
		stuck := false
		if ok {
			ctx.WithLock(t, func() { stuck = !t.Info.Cancelable && t.Info.CompleteTime == nil })
		}
		if stuck {
			return &types.NotSupported{}
		}
	case "CloneVM_Task", "RelocateVM_Task":
		// The simulator would answer with empty disks or moved names only.
		if s.state(m.This) != nil {
			return &types.NotSupported{}
		}
	}
	return nil
}

// extension gives the object that implements methods the simulator lacks or
// does wrongly.
func (s *site) extension(m *simulator.Method) mo.Reference {
	switch {
	case m.Name == "HasPrivilegeOnEntities":
		return &authExtension{Self: m.This, site: s}
	case (m.Name == "QueryChangedDiskAreas" || m.Name == "AnswerVM") && m.This.Type == "VirtualMachine" && s.state(m.This) != nil:
		return &vmExtension{Self: m.This, site: s}
	case m.Name == "RefreshDatastore" && s.dsFree.Load() >= 0:
		return &dsExtension{Self: m.This, site: s}
	case m.This.Type == "VirtualMachineSnapshot" && (m.Name == "RemoveSnapshot_Task" || m.Name == "RevertToSnapshot_Task"):
		if snap, ok := s.ctx.Map.Get(m.This).(*simulator.VirtualMachineSnapshot); ok {
			return &snapExtension{Self: m.This, vm: snap.Vm, site: s}
		}
	}
	return nil
}

// nopLock opts out of the simulator's per-object lock: the extension takes
// the VM's lock in its task, and holding the snapshot's too would invert the
// order.
type nopLock struct{}

func (nopLock) Lock()   {}
func (nopLock) Unlock() {}
