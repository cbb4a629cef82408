package main

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/vmware/govmomi/vim25/types"
)

func TestCloneKeepsBytesAndHoles(t *testing.T) {
	dir := t.TempDir()
	src, dst := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	f, err := os.Create(src)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(8<<20 + 512); err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{0, 3<<20 + 7, 8 << 20} {
		if err := fillRandom(f, off, 512, uint64(off)); err != nil {
			t.Fatal(err)
		}
	}
	f.Close()
	if err := cloneFile(dst, src); err != nil {
		t.Fatal(err)
	}
	a, _ := digestFile(src)
	b, _ := digestFile(dst)
	if raw, _ := os.ReadFile(src); a != b || a != sum(raw) {
		t.Fatalf("digests differ: %s %s", a, b)
	}
	d, _ := os.Open(dst)
	defer d.Close()
	spans, err := dataSpans(d, 8<<20+512)
	if err != nil {
		t.Fatal(err)
	}
	total := int64(0)
	for _, s := range spans {
		total += s.length
	}
	if total > 1<<20 {
		t.Fatalf("the copy of a sparse file holds %d bytes of data", total)
	}
	if err := cloneFile(dst, src); err == nil {
		t.Fatal("a copy must not overwrite")
	}
}

func TestPagesCoverEverythingOnce(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		blocks := 1 + rng.IntN(60)
		capacity := int64(blocks)*blockSize - int64(rng.IntN(127))*512
		old, now := make([]uint64, blocks), make([]uint64, blocks)
		for i := range now {
			now[i] = uint64(rng.IntN(2))
		}
		spans := changedSpans(old, now, capacity)
		limit := 1 + rng.IntN(4)
		seen := make([]bool, blocks)
		for at := int64(0); at < capacity; {
			areas, length := page(spans, at, capacity, limit)
			if len(areas) > limit || length <= 0 || at+length > capacity {
				t.Fatalf("page at %d: %d areas, length %d of %d", at, len(areas), length, capacity)
			}
			for _, a := range areas {
				if a.off < at || a.off+a.length > at+length {
					t.Fatalf("area %v leaves the page %d+%d", a, at, length)
				}
				for b := a.off / blockSize; b*blockSize < a.off+a.length; b++ {
					seen[b] = true
				}
			}
			at += length
		}
		for i := range seen {
			if seen[i] != (now[i] != 0) {
				t.Fatalf("block %d: reported %v, changed %v", i, seen[i], now[i] != 0)
			}
		}
	}
}

func TestRoundSpansMergesNeighbours(t *testing.T) {
	got := roundSpans([]span{{10, 10}, {70000, 10}, {400000, 200}}, 400200)
	want := []span{{0, 131072}, {393216, 6984}}
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Fatalf("got %v, want %v", got, want)
	}
}

func TestPruneTreeMovesChildrenUp(t *testing.T) {
	ref := func(s string) types.ManagedObjectReference {
		return types.ManagedObjectReference{Type: "VirtualMachineSnapshot", Value: s}
	}
	node := func(s string, kids ...types.VirtualMachineSnapshotTree) types.VirtualMachineSnapshotTree {
		return types.VirtualMachineSnapshotTree{Snapshot: ref(s), ChildSnapshotList: kids}
	}
	full := tree{node("a", node("b", node("c"), node("d"))), node("e")}
	got := pruneTree(full, map[types.ManagedObjectReference]bool{ref("a"): true, ref("d"): true})
	if len(got) != 2 || got[0].Snapshot != ref("b") || len(got[0].ChildSnapshotList) != 1 || got[1].Snapshot != ref("e") {
		t.Fatalf("got %+v", got)
	}
	if p := parentOf(full, ref("c")); p == nil || *p != ref("b") || parentOf(full, ref("e")) != nil {
		t.Fatal("wrong parent")
	}
}

func TestEveryListedFaultCanBeMade(t *testing.T) {
	this := types.ManagedObjectReference{Type: "VirtualMachine", Value: "vm-1"}
	for _, name := range []string{"TaskInProgress", "InvalidPowerState", "FileLocked", "NotAuthenticated", "ManagedObjectNotFound", "GenericVmConfigFault"} {
		f, err := makeFault(name, this)
		if err != nil || faultName(f) != name {
			t.Fatalf("%s: %v %v", name, f, err)
		}
	}
	f, _ := makeFault("TaskInProgress", this)
	if f.(*types.TaskInProgress).Task.Type != "Task" {
		t.Fatal("TaskInProgress must name a task")
	}
	for _, bad := range []string{"Nope", "VirtualDisk"} {
		if _, err := makeFault(bad, this); err == nil {
			t.Fatalf("%s is no fault", bad)
		}
	}
}

func TestWorldsAreChecked(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"no sites":  `{"sites":[]}`,
		"odd size":  `{"sites":[{"name":"a","vms":[{"name":"v","disks":[{"size_bytes":100}]}]}]}`,
		"bad power": `{"sites":[{"name":"a","vms":[{"name":"v","power":"up"}]}]}`,
		"typo":      `{"sites":[{"name":"a","vmz":[]}]}`,
		"outside":   `{"sites":[{"name":"a","vms":[{"name":"v","disks":[{"size_bytes":512,"changes":[{"offset":512,"length":1}]}]}]}]}`,
		"path":      `{"sites":[{"name":"a","vms":[{"name":"../v"}]}]}`,
	} {
		p := filepath.Join(dir, "w.json")
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := loadWorld(options{world: p}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
