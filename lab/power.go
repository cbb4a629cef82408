package main

import (
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// powerOn records the content before the guest can write.
func (o *operation) powerOn() (result, types.BaseMethodFault) {
	st := o.st
	st.mu.Lock()
	defer st.mu.Unlock()
	if o.vm.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOn {
		for _, d := range st.ordered() {
			for f := d.file; f != ""; f = st.files[f] { // the whole chain is opened
				if st.locked[f] != "" {
					return nil, &types.FileLocked{FileFault: types.FileFault{File: f}}
				}
			}
		}
	}
	resumed := o.vm.Runtime.PowerState == types.VirtualMachinePowerStateSuspended
	res, fault := o.orig(o.task)
	if fault != nil {
		return res, fault
	}
	detail := ""
	if resumed {
		detail = "resume"
	} else if o.call.name == "ResetVM_Task" {
		detail = "reset"
	}
	return res, o.becameOn(detail)
}

// becameOn is everything that follows from a VM having started. Call with
// mu held.
func (o *operation) becameOn(detail string) types.BaseMethodFault {
	st := o.st
	st.trackActive = st.trackWanted
	if fault := st.epoch(); fault != nil {
		return fault
	}
	st.record("power-on", detail)
	now := time.Now()
	o.ctx.Update(o.vm, []types.PropertyChange{
		{Name: "runtime.bootTime", Val: now},
		{Name: "summary.runtime.bootTime", Val: now},
	})
	st.running = true
	o.publishTools()
	st.render(o.ctx, o.vm)
	st.guest.start()
	return nil
}

// haltGuest stops the writing before a digest is taken. Call with mu held;
// it is released while the last write ends, which the VM lock makes safe.
func (st *vmState) haltGuest() {
	done := st.guest.halt()
	st.mu.Unlock()
	<-done
	st.mu.Lock()
}

func (o *operation) powerOff() (result, types.BaseMethodFault) {
	st := o.st
	st.mu.Lock()
	defer st.mu.Unlock()
	was := o.vm.Runtime.PowerState
	st.haltGuest()
	res, fault := o.orig(o.task)
	if fault != nil {
		if st.running {
			st.guest.start()
		}
		return res, fault
	}
	detail := "hard"
	if o.call.name == "ResetVM_Task" {
		detail = "reset"
	}
	return res, o.becameOff("power-off", detail, was != types.VirtualMachinePowerStatePoweredOff && detail == "hard")
}

// becameOff is everything that follows from a VM having stopped. Call with
// mu held and the guest halted.
func (o *operation) becameOff(event, detail string, lost bool) types.BaseMethodFault {
	st := o.st
	st.running = false
	st.trackActive = st.trackWanted
	var fault types.BaseMethodFault
	if lost {
		fault = st.loseTracking()
	} else {
		fault = st.epoch()
	}
	st.record(event, detail)
	if event != "suspend" {
		o.ctx.Update(o.vm, []types.PropertyChange{
			{Name: "runtime.bootTime", Val: nil},
			{Name: "summary.runtime.bootTime", Val: nil},
		})
	}
	o.publishTools()
	st.render(o.ctx, o.vm)
	return fault
}

func (o *operation) suspend() (result, types.BaseMethodFault) {
	st := o.st
	st.mu.Lock()
	defer st.mu.Unlock()
	st.haltGuest()
	res, fault := o.orig(o.task)
	if fault != nil {
		if st.running {
			st.guest.start()
		}
		return res, fault
	}
	return res, o.becameOff("suspend", "", false)
}

// awaitShutdown passes the time a guest needs to shut down, without the VM
// lock; false means the guest never does.
func (st *vmState) awaitShutdown() bool {
	st.mu.Lock()
	ignore, delay := st.ignore, st.delay
	st.mu.Unlock()
	if ignore {
		return false
	}
	time.Sleep(delay)
	return true
}

func (o *operation) shutdownGuest() (result, types.BaseMethodFault) {
	st := o.st
	st.mu.Lock()
	defer st.mu.Unlock()
	if o.vm.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOn {
		return nil, nil // somebody was faster; a guest has no task to fail
	}
	st.haltGuest()
	res, fault := o.orig(o.task)
	if fault != nil {
		st.guest.start()
		return res, fault
	}
	return res, o.becameOff("power-off", "guest", false)
}

// publishTools shows the state of VMware Tools; call with mu held.
func (o *operation) publishTools() {
	status, running, state := types.VirtualMachineToolsStatusToolsNotInstalled, types.VirtualMachineToolsRunningStatusGuestToolsNotRunning, types.VirtualMachineGuestStateNotRunning
	switch {
	case o.st.tools && o.st.running:
		status, running, state = types.VirtualMachineToolsStatusToolsOk, types.VirtualMachineToolsRunningStatusGuestToolsRunning, types.VirtualMachineGuestStateRunning
	case o.st.tools:
		status = types.VirtualMachineToolsStatusToolsNotRunning
	}
	o.ctx.Update(o.vm, []types.PropertyChange{
		{Name: "guest.toolsStatus", Val: status},
		{Name: "guest.toolsRunningStatus", Val: string(running)},
		{Name: "guest.guestState", Val: string(state)},
		{Name: "guest.hostName", Val: o.st.vmName()},
		{Name: "summary.guest.toolsStatus", Val: status},
		{Name: "summary.guest.toolsRunningStatus", Val: string(running)},
	})
}

// postEvent puts an event about this VM into the site's event log.
func (o *operation) postEvent(make func(types.VmEvent) types.BaseEvent) {
	m := o.ctx.Map.EventManager()
	ev := types.VmEvent{Event: types.Event{
		Vm: &types.VmEventArgument{
			EntityEventArgument: types.EntityEventArgument{Name: o.st.vmName()},
			Vm:                  o.vm.Self,
		},
	}}
	// The event's text names the host.
	if ref := o.vm.Runtime.Host; ref != nil {
		if h, ok := o.ctx.Map.Get(*ref).(*simulator.HostSystem); ok {
			ev.Host = &types.HostEventArgument{EntityEventArgument: types.EntityEventArgument{Name: h.Name}, Host: *ref}
		}
	}
	if dc := o.ctx.Map.Any("Datacenter"); dc != nil {
		ev.Datacenter = &types.DatacenterEventArgument{
			EntityEventArgument: types.EntityEventArgument{Name: dc.Entity().Name}, Datacenter: dc.Reference()}
	}
	req := &types.PostEvent{This: m.Self, EventToPost: make(ev)}
	o.ctx.WithLock(m, func() { m.PostEvent(o.ctx, req) })
}

// setTools switches VMware Tools of a VM from outside a task.
func (s *site) setTools(st *vmState, tools bool) error {
	ctx := s.freshContext()
	vm, ok := s.ctx.Map.Get(st.ref).(*simulator.VirtualMachine)
	if !ok {
		return failed(404, "%s is gone", st.vmName())
	}
	unlock := ctx.Map.AcquireLock(ctx, st.ref)
	defer unlock()
	st.mu.Lock()
	defer st.mu.Unlock()
	st.tools = tools
	o := &operation{st: st, vm: vm, ctx: ctx, call: &call{}}
	o.detach()
	o.publishTools()
	return nil
}
