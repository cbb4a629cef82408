package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

func editSize(disk types.VirtualDisk, size int64) types.VirtualMachineConfigSpec {
	disk.CapacityInBytes, disk.CapacityInKB = size, size/1024
	return types.VirtualMachineConfigSpec{DeviceChange: []types.BaseVirtualDeviceConfigSpec{
		&types.VirtualDeviceConfigSpec{Operation: types.VirtualDeviceConfigSpecOperationEdit, Device: &disk}}}
}

func TestReconfigureRefusesWhatVSphereRefuses(t *testing.T) {
	r := start(t, "tiny")
	p, vm := r.dr()
	version := p.vm(vm).Config.ChangeVersion
	p.ok(p.reconfig(vm, types.VirtualMachineConfigSpec{Annotation: "a", ChangeVersion: version}))
	ref, err := p.reconfig(vm, types.VirtualMachineConfigSpec{Annotation: "b", ChangeVersion: version})
	p.refused("ConcurrentAccess", ref, err)
	odd := disksOf(p.vm(vm).Config)[2001]
	if odd.CapacityInBytes != 1<<20+512 {
		t.Fatalf("capacity is %d", odd.CapacityInBytes)
	}
	ref, err = p.reconfig(vm, editSize(*odd, 1<<20))
	p.refused("InvalidDeviceOperation", ref, err)
	p.ok(p.reconfig(vm, editSize(*odd, 3<<20)))
	if got := p.live(vm, 2001); len(got) != 3<<20 || disksOf(p.vm(vm).Config)[2001].CapacityInBytes != 3<<20 {
		t.Fatalf("%d bytes after growth", len(got))
	}
	p.snapshot(vm, "s")
	ref, err = p.reconfig(vm, editSize(*disksOf(p.vm(vm).Config)[2000], 4<<20))
	p.refused("InvalidDeviceOperation", ref, err)
	if n := len(disksOf(p.vm(vm).Config)); n != 2 {
		t.Fatalf("%d disks after a refused edit", n)
	}
}

func (p *peer) newVM(name string) (types.ManagedObjectReference, error) {
	unit := int32(0)
	b := &types.VirtualDiskFlatVer2BackingInfo{DiskMode: "persistent", ThinProvisioned: types.NewBool(true)}
	b.FileName = "[" + p.site.datastore + "]"
	disk := &types.VirtualDisk{CapacityInKB: 2048}
	disk.Key, disk.ControllerKey, disk.UnitNumber, disk.Backing = -2, -1, &unit, b
	scsi := &types.ParaVirtualSCSIController{}
	scsi.Key, scsi.SharedBus = -1, types.VirtualSCSISharingNoSharing
	net := &types.VirtualEthernetCardNetworkBackingInfo{}
	net.DeviceName = "VM Network"
	nic := &types.VirtualVmxnet3{}
	nic.Key, nic.Backing = -3, net
	var spec types.VirtualMachineConfigSpec
	spec.Name, spec.MemoryMB, spec.NumCPUs, spec.GuestId = name, 768, 2, "otherLinux64Guest"
	spec.Annotation, spec.ChangeTrackingEnabled = "a \"quoted\" | note\n", types.NewBool(true)
	spec.ExtraConfig = []types.BaseOptionValue{&types.OptionValue{Key: "failback.test", Value: "1"}}
	spec.Files = &types.VirtualMachineFileInfo{VmPathName: b.FileName}
	for _, d := range []types.BaseVirtualDevice{scsi, disk, nic} {
		c := &types.VirtualDeviceConfigSpec{Operation: types.VirtualDeviceConfigSpecOperationAdd, Device: d}
		if d == types.BaseVirtualDevice(disk) {
			c.FileOperation = types.VirtualDeviceConfigSpecFileOperationCreate
		}
		spec.DeviceChange = append(spec.DeviceChange, c)
	}
	f := object.NewFolder(p.Client, p.site.folders.VmFolder.Reference())
	t, err := f.CreateVM(bg, spec, object.NewResourcePool(p.Client, p.site.pool.Reference()), nil)
	if err != nil {
		return types.ManagedObjectReference{}, err
	}
	return t.Reference(), nil
}

func TestCreateUnregisterRegister(t *testing.T) {
	r := start(t, "tiny")
	p := r.peer("production")
	ref, err := p.newVM("fresh")
	vm := p.ok(ref, err).(types.ManagedObjectReference)
	ref, err = p.newVM("fresh")
	p.refused("DuplicateName", ref, err)
	if len(p.live(vm, 2000)) != 2<<20 || p.changeID(vm, 2000) == "" {
		t.Fatal("a new disk must have bytes, and tracking as asked")
	}
	p.poke(vm, 2000, 100000, []byte("kept"))
	was := p.vm(vm).Config
	path := was.Files.VmPathName
	if _, err := methods.UnregisterVM(bg, p, &types.UnregisterVM{This: vm}); err != nil {
		t.Fatal(err)
	}
	pool := p.site.pool.Reference()
	register := func(path string) (types.ManagedObjectReference, error) {
		res, err := methods.RegisterVM_Task(bg, p, &types.RegisterVM_Task{This: p.site.folders.VmFolder.Reference(), Path: path, Pool: &pool})
		if err != nil {
			return types.ManagedObjectReference{}, err
		}
		return res.Returnval, nil
	}
	ref, err = register(path)
	again := p.ok(ref, err).(types.ManagedObjectReference)
	got := p.vm(again)
	if again == vm || got.Name != "fresh" || got.Config.InstanceUuid != was.InstanceUuid || got.Config.Annotation != was.Annotation || got.Config.Hardware.MemoryMB != 768 {
		t.Fatalf("registered as %s %q", again.Value, got.Config.Annotation)
	}
	if !bytes.Contains(p.live(again, 2000), []byte("kept")) || p.changeID(again, 2000) == "" {
		t.Fatal("disk or tracking is lost")
	}
	_, nics := countDevices(got.Config.Hardware.Device)
	if nics != 1 {
		t.Fatalf("%d network cards", nics)
	}
	ref, err = register(path)
	p.refused("AlreadyExists", ref, err)
	ref, err = register("[ds-production] nowhere/x.vmx")
	p.refused("NotFound", ref, err)
	p.snapshot(again, "s")
	res, err := methods.Destroy_Task(bg, p, &types.Destroy_Task{This: again})
	if err != nil {
		t.Fatal(err)
	}
	p.ok(res.Returnval, nil)
	if _, err := os.Stat(filepath.Join(p.site.dsDir, "fresh")); !os.IsNotExist(err) {
		t.Fatalf("the folder is still there: %v", err)
	}
}

func TestAFolderIsReadableWhileACreationIsDelayed(t *testing.T) {
	r := start(t, "tiny")
	p := r.peer("production")
	r.fault(map[string]any{"method": "CreateVM_Task", "kind": "task-delay", "seconds": 1})
	ref, err := p.newVM("slow")
	if err != nil {
		t.Fatal(err)
	}
	folder := p.site.folders.VmFolder.Reference()
	var f mo.Folder
	p.get(folder, &f, "childEntity")
	var task mo.Task
	p.get(ref, &task, "info")
	if task.Info.State != types.TaskInfoStateRunning || *task.Info.Entity != folder || len(f.ChildEntity) != 1 {
		t.Fatalf("task %s on %s, %d children", task.Info.State, task.Info.Entity.Value, len(f.ChildEntity))
	}
	p.ok(ref, nil)
}

func TestCustomAttributes(t *testing.T) {
	r := start(t, "tiny")
	p, vm := r.dr()
	cf := object.NewCustomFieldsManager(p.Client)
	def, err := cf.Add(bg, "failback.state", "VirtualMachine", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []string{"incomplete one", "incomplete two"} {
		if err := cf.Set(bg, vm, def.Key, v); err != nil {
			t.Fatal(err)
		}
	}
	var got mo.VirtualMachine
	p.get(vm, &got, "customValue", "value", "availableField")
	if len(got.CustomValue) != 1 || got.CustomValue[0].(*types.CustomFieldStringValue).Value != "incomplete two" || len(got.Value) != 1 || got.AvailableField[0].Name != "failback.state" {
		t.Fatalf("attributes are %+v", got.CustomValue)
	}
}

func TestIdentitiesOfTheSites(t *testing.T) {
	apart, same := start(t, "tiny"), start(t, "tiny", func(o *options) { o.equalUUIDs = true })
	a, b := apart.l.manifest(), same.l.manifest()
	pa, da := a.Sites["production"], a.Sites["dr"]
	if pa.InstanceUUID == da.InstanceUUID || pa.VMs["web01"].Moref == da.VMs["web01-replica"].Moref || pa.Fingerprint == da.Fingerprint {
		t.Fatalf("identities must differ: %+v %+v", pa, da)
	}
	pb, db := b.Sites["production"], b.Sites["dr"]
	if pb.InstanceUUID != db.InstanceUUID || pb.VMs["web01"].Moref != db.VMs["web01-replica"].Moref {
		t.Fatalf("identities must be equal: %+v %+v", pb, db)
	}
	p := apart.peer("production")
	if p.ServiceContent.About.InstanceUuid != pa.InstanceUUID {
		t.Fatal("about and manifest disagree")
	}
	if st, err := os.Stat(apart.l.passFile); err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("password file: %v %v", st, err)
	}
}

func TestPlainIsTheStockSimulator(t *testing.T) {
	r := start(t, "tiny", func(o *options) { o.plain = true })
	p, vm := r.dr()
	before := backing(disksOf(p.vm(vm).Config)[2000]).FileName
	snap := p.snapshot(vm, "s")
	if backing(disksOf(p.vm(vm).Config)[2000]).FileName != before {
		t.Fatal("the stock simulator does not move the live file")
	}
	if _, err := p.areas(vm, &snap, 2000, 0, "*"); callFault(err) != "MethodNotFound" {
		t.Fatalf("changed areas: %v", err)
	}
	if got := p.live(vm, 2000); len(got) != 1<<20 {
		t.Fatalf("%d bytes of content", len(got))
	}
	r.must("GET", "/state", nil)
}

func TestDemoWorldIsWhatTheManifestSays(t *testing.T) {
	if _, err := e2tool("mke2fs"); err != nil {
		t.Skip(err)
	}
	r := start(t, "demo")
	p, vm := r.dr()
	prod := r.peer("production")
	pvm := prod.site.morefs["web01"]
	if got := prod.vm(pvm).Runtime.PowerState; got != types.VirtualMachinePowerStatePoweredOn {
		t.Fatalf("production is %s", got)
	}
	r.must("POST", "/sites/dr/vms/web01-replica/guest/write", map[string]any{"disk": 1, "file": latePath, "text": "one more order\n"})
	st := p.site.state(vm)
	eventually(t, "the guest works", func() bool { return st.guest.records.Load() > 5 })
	p.ok(p.powerOff(vm))
	prod.ok(prod.powerOff(pvm))
	image := func(q *peer, vm types.ManagedObjectReference, i int) string {
		flat, _ := q.site.flatPath(backing(disksOf(q.vm(vm).Config)[int32(2000+i)]).FileName)
		return flat
	}
	for _, d := range r.l.world.demo.Disks {
		img, old := image(p, vm, d.Index), image(prod, pvm, d.Index)
		for _, f := range []string{img, old} {
			if out, err := runTool("e2fsck", "-fn", f); err != nil {
				t.Fatalf("%s is not clean: %v %s", f, err, out)
			}
		}
		for _, f := range append(d.Edited, d.Added...) {
			if got := cat(t, img, f.Path); sum(got) != f.SHA256 || len(got) != f.Size {
				t.Errorf("%s differs on the replica", f.Path)
			}
		}
		for _, f := range append(d.Edited, d.Deleted...) {
			if got := cat(t, old, f.Path); sum(got) != f.Old {
				t.Errorf("%s differs on production", f.Path)
			}
		}
		for _, f := range d.Deleted {
			if out, _ := exec.Command("debugfs", "-R", "stat "+f.Path, img).CombinedOutput(); !strings.Contains(string(out), "not found") {
				t.Errorf("%s is still on the replica", f.Path)
			}
		}
	}
	if got := cat(t, image(p, vm, 1), latePath); !bytes.HasPrefix(got, []byte("one more order\n")) || len(got) != lateSize {
		t.Fatalf("late file holds %q", got[:20])
	}
}

func cat(t *testing.T, image, path string) []byte {
	t.Helper()
	out, err := runTool("debugfs", "-R", "cat "+path, image)
	if err != nil {
		t.Fatal(err)
	}
	return []byte(out)
}

func TestDatastoreSpaceCanBeSet(t *testing.T) {
	r := start(t, "tiny")
	p := r.peer("dr")
	r.must("POST", "/sites/dr/datastore", map[string]any{"free_bytes": 4096, "accessible": false})
	ref := p.site.ctx.Map.Any("Datastore").Reference()
	if _, err := methods.RefreshDatastore(bg, p, &types.RefreshDatastore{This: ref}); err != nil {
		t.Fatal(err)
	}
	var ds mo.Datastore
	p.get(ref, &ds, "summary")
	if ds.Summary.FreeSpace != 4096 || ds.Summary.Accessible {
		t.Fatalf("summary is %+v", ds.Summary)
	}
}
