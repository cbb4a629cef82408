package main

import (
	"net/http"
	"sort"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// needed is the privilege that a method asks for on its object.
var needed = map[string]string{
	"PowerOffVM_Task":       "VirtualMachine.Interact.PowerOff",
	"ShutdownGuest":         "VirtualMachine.Interact.PowerOff",
	"PowerOnVM_Task":        "VirtualMachine.Interact.PowerOn",
	"AnswerVM":              "VirtualMachine.Interact.AnswerQuestion",
	"CreateSnapshot_Task":   "VirtualMachine.State.CreateSnapshot",
	"CreateSnapshotEx_Task": "VirtualMachine.State.CreateSnapshot",
	"RemoveSnapshot_Task":   "VirtualMachine.State.RemoveSnapshot",
	"RevertToSnapshot_Task": "VirtualMachine.State.RevertToSnapshot",
	"QueryChangedDiskAreas": "VirtualMachine.Provisioning.DiskRandomRead",
	"ReconfigVM_Task":       "VirtualMachine.Config.ChangeTracking",
	"CreateVM_Task":         "VirtualMachine.Inventory.Create",
	"RegisterVM_Task":       "VirtualMachine.Inventory.Register",
	"UnregisterVM":          "VirtualMachine.Inventory.Unregister",
	"Destroy_Task":          "VirtualMachine.Inventory.Delete",
	"Rename_Task":           "VirtualMachine.Config.Rename",
	"SetField":              "Global.SetCustomField",
	"AddCustomFieldDef":     "Global.ManageCustomFields",
}

// serveDeny sets which privileges the account lacks, everywhere at the site.
func (s *site) serveDeny(r *http.Request) (any, error) {
	var in struct {
		Privileges []string `json:"privileges"`
	}
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	denied := map[string]bool{}
	for _, p := range in.Privileges {
		denied[p] = true
	}
	s.denied.Store(&denied)
	return reply{"ok": true, "privileges": in.Privileges}, nil
}

func (s *site) lacks(privilege string) bool {
	denied := s.denied.Load()
	return denied != nil && (*denied)[privilege]
}

// refuse answers a call that the account may not make.
func (s *site) refuse(m *simulator.Method) types.BaseMethodFault {
	privilege, known := needed[m.Name]
	if !known || !s.lacks(privilege) {
		return nil
	}
	this := m.This
	return &types.NoPermission{Object: &this, PrivilegeId: privilege}
}

// authExtension tells the truth about what serveDeny took away.
type authExtension struct {
	nopLock
	Self types.ManagedObjectReference
	site *site
}

func (e *authExtension) Reference() types.ManagedObjectReference { return e.Self }

func (e *authExtension) HasPrivilegeOnEntities(_ *simulator.Context, req *types.HasPrivilegeOnEntities) soap.HasFault {
	var out []types.EntityPrivilege
	ids := append([]string(nil), req.PrivId...)
	sort.Strings(ids)
	for _, ref := range req.Entity {
		one := types.EntityPrivilege{Entity: ref}
		for _, id := range ids {
			one.PrivAvailability = append(one.PrivAvailability, types.PrivilegeAvailability{PrivId: id, IsGranted: !e.site.lacks(id)})
		}
		out = append(out, one)
	}
	return &methods.HasPrivilegeOnEntitiesBody{Res: &types.HasPrivilegeOnEntitiesResponse{Returnval: out}}
}

// serveAbout makes the site another product: an older release, or an ESXi
// host without a vCenter. Who is logged in must log in anew to see it.
func (s *site) serveAbout(r *http.Request) (any, error) {
	in := struct {
		APIVersion string `json:"api_version"`
		Host       bool   `json:"host"`
	}{}
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	ctx := s.freshContext()
	si, ok := ctx.Map.Get(types.ManagedObjectReference{Type: "ServiceInstance", Value: "ServiceInstance"}).(*simulator.ServiceInstance)
	if !ok {
		return nil, failed(500, "the site has no service instance")
	}
	ctx.WithLock(si, func() {
		about := &si.Content.About
		if in.APIVersion != "" {
			about.ApiVersion, about.Version = in.APIVersion, in.APIVersion
			about.FullName = "VMware vCenter Server " + in.APIVersion
		}
		if in.Host {
			about.ApiType, about.InstanceUuid = "HostAgent", ""
			about.FullName = "VMware ESXi " + about.Version
			si.Content.CustomFieldsManager = nil
		}
	})
	return reply{"ok": true, "sessions": s.expireSessions()}, nil
}
