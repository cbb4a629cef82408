package main

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

func (p *peer) areas(vm types.ManagedObjectReference, snap *types.ManagedObjectReference, key int32, start int64, id string) (types.DiskChangeInfo, error) {
	res, err := methods.QueryChangedDiskAreas(bg, p, &types.QueryChangedDiskAreas{This: vm, Snapshot: snap, DeviceKey: key, StartOffset: start, ChangeId: id})
	if err != nil {
		return types.DiskChangeInfo{}, err
	}
	return res.Returnval, nil
}

func (p *peer) track(vm types.ManagedObjectReference, on bool) {
	p.r.t.Helper()
	p.ok(p.reconfig(vm, types.VirtualMachineConfigSpec{ChangeTrackingEnabled: types.NewBool(on)}))
}

func (p *peer) changeID(vm types.ManagedObjectReference, key int32) string {
	p.r.t.Helper()
	return backing(disksOf(p.vm(vm).Config)[key]).ChangeId
}

func uuidOf(id string) string { return id[:strings.LastIndex(id, "/")] }

func TestChangedAreasAreExact(t *testing.T) {
	r := start(t, "tiny")
	p, vm := r.dr()
	r.must("POST", "/sites/dr/page-size", map[string]any{"extents": 2})
	p.track(vm, true)
	if p.changeID(vm, 2000) != "" {
		t.Fatal("tracking enabled on a running VM must wait for a stun")
	}
	rng := rand.New(rand.NewPCG(3, 3))
	base := p.snapshot(vm, "base")
	var snap mo.VirtualMachineSnapshot
	p.get(base, &snap, "config")
	for key, disk := range disksOf(&snap.Config) {
		old := p.content(backing(disk).FileName)
		for range 6 {
			p.poke(vm, key, rng.Int64N(int64(len(old)-600)), randomBytes(rng.Uint64(), 600))
		}
	}
	next := p.snapshot(vm, "next")
	var now mo.VirtualMachineSnapshot
	p.get(next, &now, "config")
	for key, disk := range disksOf(&snap.Config) {
		old, new := p.content(backing(disk).FileName), p.content(backing(disksOf(&now.Config)[key]).FileName)
		reported := make([]bool, (len(old)+blockSize-1)/blockSize)
		for at := int64(0); at < int64(len(old)); {
			info, err := p.areas(vm, &next, key, at, backing(disk).ChangeId)
			if err != nil {
				t.Fatal(err)
			}
			if info.StartOffset != at || info.Length <= 0 || len(info.ChangedArea) > 2 {
				t.Fatalf("page is %+v", info)
			}
			for _, a := range info.ChangedArea {
				for b := a.Start / blockSize; b*blockSize < a.Start+a.Length; b++ {
					reported[b] = true
				}
			}
			at += info.Length
		}
		for b := range reported {
			end := min((b+1)*blockSize, len(old))
			if differs := string(old[b*blockSize:end]) != string(new[b*blockSize:end]); differs != reported[b] {
				t.Fatalf("disk %d block %d: differs %v, reported %v", key, b, differs, reported[b])
			}
		}
	}
}

func TestChangeIDsAreTrustedByTheRules(t *testing.T) {
	r := start(t, "tiny")
	p, vm := r.dr()
	p.track(vm, true)
	p.ok(p.powerOff(vm)) // the stun that makes it real; hard, but nothing was named yet
	id := p.changeID(vm, 2000)
	if id == "" {
		t.Fatal("no change id after the stun")
	}
	p.ok(p.powerOn(vm))
	if uuidOf(p.changeID(vm, 2000)) != uuidOf(id) {
		t.Fatal("power on must keep the uuid")
	}
	if _, err := methods.ShutdownGuest(bg, p, &types.ShutdownGuest{This: vm}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "guest shutdown", func() bool { return p.vm(vm).Runtime.PowerState == types.VirtualMachinePowerStatePoweredOff })
	if _, err := p.areas(vm, nil, 2000, 0, id); err != nil {
		t.Fatalf("a clean power cycle must keep the id valid: %v", err)
	}
	lost := func(what string) {
		t.Helper()
		if got := p.changeID(vm, 2000); got == "" || uuidOf(got) == uuidOf(id) {
			t.Fatalf("%s: change id is %q, was %q", what, got, id)
		}
		if _, err := p.areas(vm, nil, 2000, 0, id); callFault(err) != "FileFault" {
			t.Fatalf("%s: the old id gives %v", what, err)
		}
		id = p.changeID(vm, 2000)
	}
	p.ok(p.powerOn(vm))
	p.ok(p.powerOff(vm))
	lost("hard power-off")
	snap := p.snapshot(vm, "s")
	p.ok(p.revert(snap))
	lost("revert")
	p.ok(p.remove(snap, false))
	disk := *disksOf(p.vm(vm).Config)[2000]
	disk.CapacityInBytes, disk.CapacityInKB = 2<<20, 2<<10
	p.ok(p.reconfig(vm, types.VirtualMachineConfigSpec{DeviceChange: []types.BaseVirtualDeviceConfigSpec{
		&types.VirtualDeviceConfigSpec{Operation: types.VirtualDeviceConfigSpecOperationEdit, Device: &disk}}}))
	lost("growth")
	p.track(vm, false)
	if _, err := p.areas(vm, nil, 2000, 0, id); callFault(err) != "FileFault" || p.changeID(vm, 2000) != "" {
		t.Fatalf("disabled: %v", err)
	}
	p.track(vm, true)
	lost("disabled and enabled")
}

func TestChangedAreasRefuseBadQuestions(t *testing.T) {
	r := start(t, "tiny")
	p, vm := r.dr()
	p.track(vm, true)
	snap := p.snapshot(vm, "s")
	id := p.changeID(vm, 2000)
	gone := types.ManagedObjectReference{Type: "VirtualMachineSnapshot", Value: "snapshot-9"}
	for what, c := range map[string]struct {
		snap  *types.ManagedObjectReference
		key   int32
		start int64
		id    string
		want  string
	}{
		"running without snapshot": {nil, 2000, 0, id, "InvalidArgument"},
		"start at capacity":        {&snap, 2000, 1 << 20, id, "InvalidArgument"},
		"negative start":           {&snap, 2000, -1, id, "InvalidArgument"},
		"unknown disk":             {&snap, 2099, 0, id, "InvalidArgument"},
		"malformed id":             {&snap, 2000, 0, "nonsense", "InvalidArgument"},
		"foreign id":               {&snap, 2000, 0, "52 00-00/1", "FileFault"},
		"future id":                {&snap, 2000, 0, uuidOf(id) + "/99", "FileFault"},
		"gone snapshot":            {&gone, 2000, 0, id, "ManagedObjectNotFound"},
	} {
		if _, err := p.areas(vm, c.snap, c.key, c.start, c.id); err == nil || callFault(err) != c.want {
			t.Errorf("%s: got %v, want %s", what, err, c.want)
		}
	}
	info, err := p.areas(vm, &snap, 2000, 0, "*")
	if err != nil || len(info.ChangedArea) == 0 || info.Length != 1<<20 {
		t.Fatalf("allocated areas: %+v %v", info, err)
	}
}
