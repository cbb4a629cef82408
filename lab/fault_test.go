package main

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

func (p *peer) trySnapshot(vm types.ManagedObjectReference) (types.ManagedObjectReference, error) {
	res, err := methods.CreateSnapshot_Task(bg, p, &types.CreateSnapshot_Task{This: vm, Name: "try"})
	if err != nil {
		return types.ManagedObjectReference{}, err
	}
	return res.Returnval, nil
}

func (p *peer) count(vm types.ManagedObjectReference) int {
	if s := p.vm(vm).Snapshot; s != nil {
		return len(subtree(s.RootSnapshotList[0]))
	}
	return 0
}

func TestOverlappingTasksAndCancel(t *testing.T) {
	r := start(t, "tiny")
	p, vm := r.dr()
	r.fault(map[string]any{"site": "dr", "method": "CreateSnapshot_Task", "object": "web01-replica", "kind": "task-delay", "seconds": 5})
	first, err := p.trySnapshot(vm)
	if err != nil {
		t.Fatal(err)
	}
	var info mo.Task
	eventually(t, "the task runs", func() bool {
		p.get(first, &info, "info")
		return info.Info.State == types.TaskInfoStateRunning && *info.Info.Entity == vm
	})
	if info.Info.DescriptionId != "VirtualMachine.createSnapshot" || info.Info.EntityName != "web01-replica" {
		t.Fatalf("task is %+v", info.Info)
	}
	if got := p.vm(vm).RecentTask; got[len(got)-1] != first {
		t.Fatalf("recent tasks are %v", got)
	}
	ref, err := p.powerOff(vm)
	if err != nil {
		t.Fatal(err)
	}
	_, fault := p.task(ref)
	if busy, ok := fault.(*types.TaskInProgress); !ok || busy.Task != first {
		t.Fatalf("overlapping task: %#v", fault)
	}
	if _, err := methods.CancelTask(bg, p, &types.CancelTask{This: first}); err != nil {
		t.Fatal(err)
	}
	p.refused("RequestCanceled", first, nil)
	eventually(t, "the VM is free again", func() bool {
		ref, err := p.trySnapshot(vm)
		if err != nil {
			t.Fatal(err)
		}
		_, fault := p.task(ref)
		return fault == nil
	})
	if p.count(vm) != 1 {
		t.Fatalf("%d snapshots: the cancelled one must not exist", p.count(vm))
	}
}

func TestRulesHitWhatTheySay(t *testing.T) {
	r := start(t, "tiny")
	p, vm := r.dr()
	id := r.fault(map[string]any{"method": "CreateSnapshot_Task", "object": vm.Value, "skip": 1, "count": 2, "kind": "fault", "fault": "HostCommunication"})
	for i, want := range []bool{false, true, true, false} {
		ref, err := p.trySnapshot(vm)
		if hit := err != nil; hit != want {
			t.Fatalf("call %d: %v", i, err)
		}
		if err == nil {
			p.ok(ref, nil)
		} else if callFault(err) != "HostCommunication" {
			t.Fatalf("call %d: %v", i, err)
		}
	}
	if f, _ := r.l.faults.get(id); f.Hits != 2 {
		t.Fatalf("rule is %+v", f)
	}
	r.fault(map[string]any{"method": "*", "object": "somebody-else", "kind": "fault", "fault": "InvalidState"})
	ref, err := p.trySnapshot(vm)
	p.ok(ref, err)
	r.fault(map[string]any{"method": "PowerOffVM_Task", "kind": "task-fault", "fault": "GenericVmConfigFault", "message": "Failed to lock the file"})
	ref, err = p.powerOff(vm)
	if err != nil {
		t.Fatal(err)
	}
	if _, fault := p.task(ref); !strings.Contains(fault.(*types.GenericVmConfigFault).Reason, "Failed to lock") {
		t.Fatalf("fault is %#v", fault)
	}
	if p.vm(vm).Runtime.PowerState != types.VirtualMachinePowerStatePoweredOn {
		t.Fatal("a failed task must have done nothing")
	}
	r.fault(map[string]any{"method": "PowerOffVM_Task", "kind": "http-503"})
	if _, err := p.powerOff(vm); err == nil || soap.IsSoapFault(err) || !strings.Contains(err.Error(), "503") {
		t.Fatalf("503: %v", err)
	}
	for _, bad := range []map[string]any{{"kind": "odd"}, {"kind": "fault", "fault": "Nope"}, {"kind": "delay"}, {"kind": "delay", "seconds": 1, "site": "moon"}, {"kid": 1}} {
		if code, _ := r.ctl("POST", "/faults", bad); code != 400 {
			t.Errorf("%v: %d", bad, code)
		}
	}
}

func TestLostRepliesHappenBeforeOrAfter(t *testing.T) {
	r := start(t, "tiny")
	p, vm := r.dr()
	r.fault(map[string]any{"method": "CreateSnapshot_Task", "kind": "drop-before"})
	if _, err := p.trySnapshot(vm); err == nil {
		t.Fatal("the call must fail")
	}
	time.Sleep(30 * time.Millisecond)
	if n := p.count(vm); n != 0 {
		t.Fatalf("%d snapshots after a request that was lost", n)
	}
	r.fault(map[string]any{"method": "CreateSnapshot_Task", "kind": "drop-after", "wait_task": true})
	if _, err := p.trySnapshot(vm); err == nil || soap.IsSoapFault(err) {
		t.Fatalf("the call must fail without an answer: %v", err)
	}
	if n := p.count(vm); n != 1 {
		t.Fatalf("%d snapshots after a reply that was lost", n)
	}
}

func TestHeldCalls(t *testing.T) {
	r := start(t, "tiny")
	p, vm := r.dr()
	for _, c := range []struct {
		kind    string
		applied int
	}{{"hold-before", 0}, {"hold-after", 2}} {
		id := r.fault(map[string]any{"method": "CreateSnapshot_Task", "kind": c.kind, "wait_task": true})
		done := make(chan error, 1)
		go func() { _, err := p.trySnapshot(vm); done <- err }()
		eventually(t, c.kind, func() bool { f, _ := r.l.faults.get(id); return f.Holding })
		other := r.peer("dr")
		if n := other.count(vm); n != c.applied {
			t.Fatalf("%s: %d snapshots while held", c.kind, n)
		}
		r.must("POST", "/faults/"+strconv.Itoa(id)+"/release", nil)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		eventually(t, "applied", func() bool { return other.count(vm) > 0 })
	}
}

func TestDownUpAndSessions(t *testing.T) {
	r := start(t, "tiny")
	p, vm := r.dr()
	r.must("POST", "/sites/dr/down", nil)
	for range 3 {
		if _, err := p.powerOff(vm); err == nil || soap.IsSoapFault(err) {
			t.Fatalf("a dead site answered: %v", err)
		}
	}
	r.must("POST", "/sites/dr/up", nil)
	if p.vm(vm).Name != "web01-replica" {
		t.Fatal("the site must be back with its sessions")
	}
	r.must("POST", "/sites/dr/expire-sessions", nil)
	if _, err := p.powerOff(vm); callFault(err) != "NotAuthenticated" {
		t.Fatalf("after the session ended: %v", err)
	}
	if _, err := r.login(p.site, "lab@failback.local", "wrong"); callFault(err) != "InvalidLogin" {
		t.Fatalf("wrong password: %v", err)
	}
	q := r.peer("dr")
	r.fault(map[string]any{"method": "PowerOffVM_Task", "kind": "not-authenticated"})
	if _, err := q.powerOff(vm); callFault(err) != "NotAuthenticated" {
		t.Fatalf("rule: %v", err)
	}
	q.ok(q.powerOff(vm))
}

func TestFinishedTasksDisappear(t *testing.T) {
	r := start(t, "tiny")
	p, vm := r.dr()
	ref, err := p.powerOff(vm)
	p.ok(ref, err)
	r.must("POST", "/sites/dr/purge-tasks", nil)
	if got := p.vm(vm).RecentTask; len(got) != 0 {
		t.Fatalf("recent tasks are %v", got)
	}
	if _, err := methods.CancelTask(bg, p, &types.CancelTask{This: ref}); callFault(err) != "ManagedObjectNotFound" {
		t.Fatalf("a purged task: %v", err)
	}
}
