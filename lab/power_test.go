package main

import (
	"os"
	"testing"
	"time"

	"github.com/vmware/govmomi/event"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"
)

func writingGuest(o *options) { o.keepImages = true }

func TestDigestsAreTakenWhileTheGuestIsSilent(t *testing.T) {
	r := start(t, "tiny", writingGuest)
	p, vm := r.dr()
	r.must("POST", "/sites/dr/vms/web01-replica/guest/config", map[string]any{"interval_ms": 1})
	st := p.site.state(vm)
	for range 5 {
		n := st.guest.records.Load()
		eventually(t, "the guest writes", func() bool { return st.guest.records.Load() > n+3 })
		p.ok(p.powerOff(vm))
		recs := r.l.records.find("dr", "web01-replica")
		last := recs[len(recs)-1]
		if last.Event != "power-off" || last.Detail != "hard" || last.Error != "" {
			t.Fatalf("record is %+v", last)
		}
		n = st.guest.records.Load()
		for i, key := range []int32{2000, 2001} {
			if got := sum(p.live(vm, key)); got != last.Disks[i].SHA256 {
				t.Fatalf("disk %d holds %s after power-off, the record says %s", i, got, last.Disks[i].SHA256)
			}
			img, err := os.ReadFile(last.Disks[i].Image)
			if err != nil || sum(img) != last.Disks[i].SHA256 {
				t.Fatalf("kept image of disk %d: %v", i, err)
			}
		}
		time.Sleep(10 * time.Millisecond)
		if st.guest.records.Load() != n {
			t.Fatal("a guest that is off wrote")
		}
		p.ok(p.powerOn(vm))
		on := r.l.records.find("dr", "web01-replica")
		if first := on[len(on)-1]; first.Event != "power-on" || first.Disks[0].SHA256 != last.Disks[0].SHA256 {
			t.Fatalf("content changed between off and on: %+v", first)
		}
	}
}

func TestGuestWritesOnlyInsideItsFiles(t *testing.T) {
	r := start(t, "tiny")
	p, vm := r.dr()
	before := p.live(vm, 2000)
	other := p.live(vm, 2001)
	r.must("POST", "/sites/dr/vms/web01-replica/guest/config", map[string]any{"interval_ms": 1})
	st := p.site.state(vm)
	eventually(t, "the guest writes", func() bool { return st.guest.records.Load() > 20 })
	r.must("POST", "/sites/dr/vms/web01-replica/guest/stop", nil)
	after := p.live(vm, 2000)
	for i := range before {
		inFile := i >= 131072 && i < 131072+65536 || i >= 262144 && i < 262144+4096
		if before[i] != after[i] && !inFile {
			t.Fatalf("byte %d changed outside the guest's file", i)
		}
	}
	if sum(other) != sum(p.live(vm, 2001)) {
		t.Fatal("a manual file was written by the running guest")
	}
	r.must("POST", "/sites/dr/vms/web01-replica/guest/write", map[string]any{"disk": 1, "file": "/srv/late.txt", "at": 5, "text": "late"})
	if got := string(p.live(vm, 2001)[8192+5 : 8192+9]); got != "late" {
		t.Fatalf("the file holds %q", got)
	}
	p.ok(p.powerOff(vm))
	if code, _ := r.ctl("POST", "/sites/dr/vms/web01-replica/guest/write", map[string]any{"disk": 0, "text": "x"}); code != 409 {
		t.Fatalf("write to a VM that is off: %d", code)
	}
}

func TestGuestShutdownFollowsTheSwitches(t *testing.T) {
	r := start(t, "tiny")
	p, vm := r.dr()
	shut := func() error {
		_, err := methods.ShutdownGuest(bg, p, &types.ShutdownGuest{This: vm})
		return err
	}
	power := func() types.VirtualMachinePowerState { return p.vm(vm).Runtime.PowerState }
	config := func(m map[string]any) { r.must("POST", "/sites/dr/vms/web01-replica/guest/config", m) }
	config(map[string]any{"tools": false})
	if err := shut(); callFault(err) != "ToolsUnavailable" {
		t.Fatalf("without tools: %v", err)
	}
	if p.vm(vm).Guest.ToolsRunningStatus != "guestToolsNotRunning" {
		t.Fatal("tools are shown as running")
	}
	config(map[string]any{"tools": true, "ignore_shutdown": true})
	if err := shut(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	if power() != types.VirtualMachinePowerStatePoweredOn {
		t.Fatal("a guest that ignores shutdown went off")
	}
	config(map[string]any{"ignore_shutdown": false, "shutdown_delay_ms": 150})
	began := time.Now()
	if err := shut(); err != nil {
		t.Fatal(err)
	}
	if power() != types.VirtualMachinePowerStatePoweredOn {
		t.Fatal("off before the delay")
	}
	eventually(t, "off after the delay", func() bool { return power() == types.VirtualMachinePowerStatePoweredOff })
	if d := time.Since(began); d < 150*time.Millisecond {
		t.Fatalf("off after %v", d)
	}
	if err := shut(); callFault(err) != "InvalidPowerState" {
		t.Fatalf("shutdown of a VM that is off: %v", err)
	}
}

func TestPowerEventsAndBootTime(t *testing.T) {
	r := start(t, "tiny")
	p, vm := r.dr()
	boot := p.vm(vm).Runtime.BootTime
	if boot == nil {
		t.Fatal("no boot time")
	}
	p.ok(p.powerOff(vm))
	p.ok(p.powerOn(vm))
	if again := p.vm(vm).Runtime.BootTime; again == nil || !again.After(*boot) {
		t.Fatalf("boot time %v after %v", again, boot)
	}
	list, err := event.NewManager(p.Client).QueryEvents(bg, types.EventFilterSpec{
		Entity:      &types.EventFilterSpecByEntity{Entity: vm, Recursion: types.EventFilterSpecRecursionOptionSelf},
		EventTypeId: []string{"VmPoweredOnEvent", "VmPoweredOffEvent"}})
	if err != nil {
		t.Fatal(err)
	}
	on, off := 0, 0
	keys := map[int32]bool{}
	for _, e := range list {
		if keys[e.GetEvent().Key] {
			t.Fatal("two events share a key")
		}
		keys[e.GetEvent().Key] = true
		switch e.(type) {
		case *types.VmPoweredOnEvent:
			on++
		case *types.VmPoweredOffEvent:
			off++
		}
	}
	if on != 2 || off != 1 {
		t.Fatalf("%d on, %d off", on, off)
	}
}

func TestPowerOnOfALockedDisk(t *testing.T) {
	r := start(t, "tiny")
	p, vm := r.dr()
	p.ok(p.powerOff(vm))
	r.must("POST", "/sites/dr/vms/web01-replica/lock", map[string]any{"disk": 1})
	ref, err := p.powerOn(vm)
	p.refused("FileLocked", ref, err)
	r.must("POST", "/sites/dr/vms/web01-replica/lock", map[string]any{"disk": 1, "locked": false})
	p.ok(p.powerOn(vm))
	ref, err = p.powerOn(vm)
	p.refused("InvalidPowerState", ref, err)
	for _, body := range []map[string]any{{"on": false, "hard": true}, {"on": true}} {
		r.must("POST", "/sites/dr/vms/web01-replica/power", body)
	}
	if p.vm(vm).Runtime.PowerState != types.VirtualMachinePowerStatePoweredOn {
		t.Fatal("the control endpoint did not switch it on")
	}
}
