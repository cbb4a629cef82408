package main

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

func TestSnapshotFreezesAndMovesTheLiveFile(t *testing.T) {
	r := start(t, "tiny")
	p, vm := r.dr()
	before := p.live(vm, 2000)
	snap := p.snapshot(vm, "one")
	p.poke(vm, 2000, 4096, []byte("after the snapshot"))
	disk := backing(disksOf(p.vm(vm).Config)[2000])
	if !strings.HasSuffix(disk.FileName, "-000001.vmdk") || disk.Parent == nil {
		t.Fatalf("live file is %s, parent %v", disk.FileName, disk.Parent)
	}
	var s mo.VirtualMachineSnapshot
	p.get(snap, &s, "config")
	frozen := backing(disksOf(&s.Config)[2000])
	if frozen.FileName != disk.Parent.FileName {
		t.Fatalf("snapshot names %s, the live disk's parent is %s", frozen.FileName, disk.Parent.FileName)
	}
	if !bytes.Equal(p.content(frozen.FileName), before) || bytes.Equal(p.live(vm, 2000), before) {
		t.Fatal("the snapshot must keep the content, the live disk must not")
	}
	vmx := p.vm(vm)
	if vmx.Snapshot.RootSnapshotList[0].Description != "d one" || *vmx.Snapshot.CurrentSnapshot != snap {
		t.Fatalf("tree is %+v", vmx.Snapshot)
	}
	p.ok(p.remove(snap, false))
	after := p.vm(vm)
	if b := backing(disksOf(after.Config)[2000]); b.FileName != frozen.FileName || b.Parent != nil || after.Snapshot != nil {
		t.Fatalf("after the merge: %s, parent %v, tree %v", b.FileName, b.Parent, after.Snapshot)
	}
	if !bytes.Contains(p.live(vm, 2000), []byte("after the snapshot")) {
		t.Fatal("the merge lost a write")
	}
	left, _ := filepath.Glob(filepath.Join(p.site.dsDir, "web01-replica", "*-0000*"))
	vmsn, _ := filepath.Glob(filepath.Join(p.site.dsDir, "web01-replica", "*.vmsn"))
	if len(left)+len(vmsn) > 0 {
		t.Fatalf("left behind: %v %v", left, vmsn)
	}
	p.refusedGone(snap)
}

func (p *peer) refusedGone(snap types.ManagedObjectReference) {
	p.r.t.Helper()
	if _, err := p.remove(snap, false); err == nil || callFault(err) != "ManagedObjectNotFound" {
		p.r.t.Fatalf("removing a gone snapshot: %v", err)
	}
}

func TestRevertRestoresContentConfigurationAndPower(t *testing.T) {
	r := start(t, "tiny")
	p, vm := r.dr()
	one, two := p.live(vm, 2000), p.live(vm, 2001)
	off := p.snapshot(vm, "off")
	res, err := methods.CreateSnapshot_Task(bg, p, &types.CreateSnapshot_Task{This: vm, Name: "running", Memory: true})
	if err != nil {
		t.Fatal(err)
	}
	running := p.ok(res.Returnval, nil).(types.ManagedObjectReference)
	p.poke(vm, 2000, 0, []byte("x"))
	p.ok(p.reconfig(vm, types.VirtualMachineConfigSpec{MemoryMB: 1024, NumCPUs: 3, Annotation: "changed"}))
	p.ok(p.revert(off))
	got := p.vm(vm)
	if got.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOff || got.Runtime.BootTime != nil {
		t.Fatalf("power is %s, boot time %v", got.Runtime.PowerState, got.Runtime.BootTime)
	}
	if got.Config.Hardware.MemoryMB != 512 || got.Config.Hardware.NumCPU != 1 || got.Config.Annotation != "" || got.Summary.Config.MemorySizeMB != 512 {
		t.Fatalf("configuration is %+v", got.Config.Hardware)
	}
	if !bytes.Equal(p.live(vm, 2000), one) || !bytes.Equal(p.live(vm, 2001), two) {
		t.Fatal("content is not that of the snapshot")
	}
	p.ok(p.revert(running))
	if got := p.vm(vm); got.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOn || *got.Snapshot.CurrentSnapshot != running {
		t.Fatalf("power is %s", got.Runtime.PowerState)
	}
}

// TestSnapshotTreesKeepEveryContent drives random trees and compares every
// snapshot and the live disk with a model after each step.
func TestSnapshotTreesKeepEveryContent(t *testing.T) {
	r := start(t, "tiny")
	p, vm := r.dr()
	p.ok(p.powerOff(vm))
	rng := rand.New(rand.NewPCG(7, 7))
	model := map[types.ManagedObjectReference][]byte{}
	names := func() (all []types.ManagedObjectReference) {
		if s := p.vm(vm).Snapshot; s != nil {
			for _, n := range s.RootSnapshotList {
				all = append(all, subtree(n)...)
			}
		}
		return all
	}
	live := p.live(vm, 2000)
	for step := range 60 {
		all := names()
		op := rng.IntN(10)
		switch {
		case op < 4 && len(all) < 8:
			model[p.snapshot(vm, "s")] = append([]byte(nil), live...)
		case op < 7 && len(all) > 0:
			s := all[rng.IntN(len(all))]
			p.ok(p.revert(s))
			live = append([]byte(nil), model[s]...)
		case op < 9 && len(all) > 0:
			p.ok(p.remove(all[rng.IntN(len(all))], rng.IntN(4) == 0))
		case op == 9 && step%20 == 19:
			res, err := methods.RemoveAllSnapshots_Task(bg, p, &types.RemoveAllSnapshots_Task{This: vm})
			if err != nil {
				t.Fatal(err)
			}
			p.ok(res.Returnval, nil)
		}
		off := rng.IntN(len(live) - 9)
		p.poke(vm, 2000, int64(off), []byte{byte(step), 1, 2, 3})
		copy(live[off:], []byte{byte(step), 1, 2, 3})
		if !bytes.Equal(p.live(vm, 2000), live) {
			t.Fatalf("step %d: live content differs", step)
		}
		left := names()
		for _, s := range left {
			var snap mo.VirtualMachineSnapshot
			p.get(s, &snap, "config", "childSnapshot")
			if !bytes.Equal(p.content(backing(disksOf(&snap.Config)[2000]).FileName), model[s]) {
				t.Fatalf("step %d: content of %s differs", step, s.Value)
			}
		}
		if len(left) == 0 {
			files, _ := os.ReadDir(filepath.Join(p.site.dsDir, "web01-replica"))
			for _, f := range files {
				if strings.Contains(f.Name(), "-0000") || strings.HasSuffix(f.Name(), ".vmsn") {
					t.Fatalf("step %d: %s is left", step, f.Name())
				}
			}
		}
	}
}
