package main

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// TestManyClientsAtOnce lets clients do everything to one VM while its guest
// writes. Faults are expected; panics, hangs and races are not.
func TestManyClientsAtOnce(t *testing.T) {
	r := start(t, "tiny")
	p, vm := r.dr()
	r.must("POST", "/sites/dr/vms/web01-replica/guest/config", map[string]any{"interval_ms": 1})
	p.track(vm, true)
	stop := time.Now().Add(1500 * time.Millisecond)
	var wg sync.WaitGroup
	for n := range 6 {
		q := r.peer("dr")
		wg.Add(1)
		go func() {
			defer wg.Done()
			rng := rand.New(rand.NewPCG(uint64(n), 9))
			for time.Now().Before(stop) {
				q.disturb(vm, rng)
			}
		}()
	}
	wg.Wait()
	eventually(t, "the VM is free", func() bool {
		res, err := methods.RemoveAllSnapshots_Task(bg, p, &types.RemoveAllSnapshots_Task{This: vm})
		if err != nil {
			return false
		}
		_, fault := p.task(res.Returnval)
		return fault == nil
	})
	p.live(vm, 2000)
	st := p.site.state(vm)
	st.mu.Lock()
	defer st.mu.Unlock()
	if len(st.files) != len(st.disks) {
		t.Fatalf("files %v are left for %d disks", st.files, len(st.disks))
	}
}

func (p *peer) disturb(vm types.ManagedObjectReference, rng *rand.Rand) {
	var m mo.VirtualMachine
	p.get(vm, &m, "config", "snapshot", "runtime", "recentTask", "layoutEx", "guest", "summary")
	var all []types.ManagedObjectReference
	if m.Snapshot != nil {
		for _, n := range m.Snapshot.RootSnapshotList {
			all = append(all, subtree(n)...)
		}
	}
	pick := func() types.ManagedObjectReference { return all[rng.IntN(len(all))] }
	var ref types.ManagedObjectReference
	var err error
	switch op := rng.IntN(9); {
	case op < 2 && len(all) < 6:
		ref, err = p.trySnapshot(vm)
	case op == 2 && len(all) > 0:
		ref, err = p.remove(pick(), rng.IntN(2) == 0)
	case op == 3 && len(all) > 0:
		ref, err = p.revert(pick())
	case op == 4:
		ref, err = p.powerOff(vm)
	case op == 5:
		ref, err = p.powerOn(vm)
	case op == 6:
		ref, err = p.reconfig(vm, types.VirtualMachineConfigSpec{Annotation: "x", ChangeTrackingEnabled: types.NewBool(rng.IntN(2) == 0)})
	case op == 7 && len(all) > 0:
		s := pick()
		_, _ = p.areas(vm, &s, 2000, 0, "*")
		return
	default:
		_, _ = methods.ShutdownGuest(bg, p, &types.ShutdownGuest{This: vm})
		p.r.l.state()
		return
	}
	if err == nil {
		p.task(ref)
	}
}
