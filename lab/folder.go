package main

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
	"github.com/vmware/govmomi/vmdk"
)

// folderTask wraps CreateVM and RegisterVM, which run on a folder.
func (h *hook) folderTask(ctx, tctx *simulator.Context, t *simulator.Task) {
	c := callOf(tctx)
	register := t.Info.DescriptionId == "Folder.registerVm"
	// RegisterVM runs a CreateVM of its own under the same context.
	nested := c.name == "RegisterVM_Task" && !register
	if !nested {
		h.TaskManager.PutObject(ctx, t)
	}
	folder := *t.Info.Entity
	orig := t.Execute
	if nested {
		return
	}
	// As for VMs: the folder stays readable while the task is delayed.
	dummy := types.ManagedObjectReference{Type: "Folder", Value: "lab-" + t.Self.Value}
	t.Info.Entity = &dummy
	h.site.swaps.add(1)
	t.Execute = func(t *simulator.Task) (types.AnyType, types.BaseMethodFault) {
		tctx.WithLock(t, func() { t.Info.Entity = &folder })
		h.site.swaps.add(-1)
		end := h.site.clock.begin()
		defer end()
		if fault := h.inject(tctx, t, c); fault != nil {
			return nil, fault
		}
		unlock := tctx.Map.AcquireLock(tctx, folder)
		defer unlock()
		var found *vmxFile
		switch req := c.body.(type) {
		case *types.CreateVM_Task:
			if fault := h.site.nameTaken(folder, req.Config.Name, tctx); fault != nil {
				return nil, fault
			}
			realKeys(&req.Config, nil)
		case *types.RegisterVM_Task:
			f, fault := h.site.prepareRegister(folder, req, tctx)
			if fault != nil {
				return nil, fault
			}
			found = f
		}
		res, fault := orig(t)
		ref, ok := res.(types.ManagedObjectReference)
		if fault != nil || !ok {
			return res, fault
		}
		return res, h.site.adoptVM(tctx, t, ref, found, c)
	}
}

// adoptVM takes a VM the simulator just made into the lab's care.
func (s *site) adoptVM(ctx *simulator.Context, t *simulator.Task, ref types.ManagedObjectReference, found *vmxFile, c *call) types.BaseMethodFault {
	vm, ok := ctx.Map.Get(ref).(*simulator.VirtualMachine)
	if !ok {
		return &types.ManagedObjectNotFound{Obj: ref}
	}
	unlock := ctx.Map.AcquireLock(ctx, ref)
	defer unlock()
	st := s.newState(ref, vm.Name)
	// Holding the claim makes the reconfiguration below a part of this task.
	st.claim(t, ctx)
	defer st.release(t)
	if found != nil {
		if fault := s.applyVMX(ctx, vm, found); fault != nil {
			return fault
		}
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	o := &operation{st: st, vm: vm, ctx: ctx, call: c}
	o.detach()
	st.adopt(vm)
	st.trackWanted = vm.Config.ChangeTrackingEnabled != nil && *vm.Config.ChangeTrackingEnabled
	st.trackActive = st.trackWanted
	if fault := st.startTracking(); fault != nil {
		return fault
	}
	o.publishTools()
	ctx.Update(vm, []types.PropertyChange{{Name: "capability.changeTrackingSupported", Val: true}})
	st.render(ctx, vm)
	o.refreshStorage()
	return nil
}

// prepareRegister reads the vmx and makes the two files the simulator
// insists on, which real vSphere does not need.
func (s *site) prepareRegister(folder types.ManagedObjectReference, req *types.RegisterVM_Task, ctx *simulator.Context) (*vmxFile, types.BaseMethodFault) {
	host, err := s.hostPath(req.Path)
	if err != nil {
		return nil, &types.InvalidDatastorePath{InvalidDatastore: types.InvalidDatastore{Name: s.datastore}, DatastorePath: req.Path}
	}
	f, err := readVMX(host)
	if os.IsNotExist(err) {
		return nil, &types.NotFound{}
	}
	if err != nil {
		complain("register %s: %v", req.Path, err)
		return nil, &types.InvalidVmConfig{Property: "vmx"}
	}
	if req.Name == "" {
		req.Name = f.values["displayName"]
	}
	if req.Name == "" {
		req.Name = strings.TrimSuffix(filepath.Base(host), ".vmx")
	}
	// A path registered twice is AlreadyExists, which the simulator finds.
	if !s.pathRegistered(req.Path, ctx) {
		if fault := s.nameTaken(folder, req.Name, ctx); fault != nil {
			return nil, fault
		}
	}
	for _, name := range []string{req.Name + ".nvram", "vmware.log"} {
		if h, err := os.OpenFile(filepath.Join(filepath.Dir(host), name), os.O_CREATE|os.O_WRONLY, 0o600); err == nil {
			_ = h.Close()
		}
	}
	return f, nil
}

func (s *site) pathRegistered(path string, ctx *simulator.Context) bool {
	for _, st := range s.states() {
		if vm, ok := ctx.Map.Get(st.ref).(*simulator.VirtualMachine); ok {
			same := false
			ctx.WithLock(vm, func() { same = vm.Config.Files.VmPathName == path })
			if same {
				return true
			}
		}
	}
	return false
}

// fillFromDescriptor gives a disk outside any VM its bytes.
func (s *site) fillFromDescriptor(ds string) {
	var p object.DatastorePath
	if !p.FromString(ds) || p.Datastore != s.datastore {
		return
	}
	host, err := s.hostPath(ds)
	if err != nil {
		return
	}
	f, err := os.Open(host)
	if err != nil {
		return
	}
	defer f.Close()
	d, err := vmdk.ParseDescriptor(f)
	if err != nil {
		return
	}
	flat, err := s.flatPath(ds)
	if err == nil {
		err = makeSize(flat, d.Capacity())
	}
	if err != nil {
		complain("size of %s: %v", ds, err)
	}
}
