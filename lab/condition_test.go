package main

import (
	"crypto/tls"
	"net/http"
	"testing"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

func TestAPowerOnThatAsksWaitsForItsAnswer(t *testing.T) {
	r := start(t, "tiny")
	p := r.peer("production")
	vm := p.site.morefs["web01"]
	r.must("POST", "/sites/production/vms/web01/question", nil)
	on, err := methods.PowerOnVM_Task(bg, p, &types.PowerOnVM_Task{This: vm})
	if err != nil {
		t.Fatal(err)
	}
	var asked *types.VirtualMachineQuestionInfo
	eventually(t, "the question is shown", func() bool {
		var o mo.VirtualMachine
		p.get(vm, &o, "runtime.question")
		asked = o.Runtime.Question
		return asked != nil
	})
	if asked.Message[0].Id != "msg.uuid.altered" || len(asked.Choice.ChoiceInfo) != 3 {
		t.Fatalf("asked %+v", asked)
	}
	answer := func(id, choice string) error {
		_, err := methods.AnswerVM(bg, p, &types.AnswerVM{This: vm, QuestionId: id, AnswerChoice: choice})
		return err
	}
	if err := answer("4711", "1"); err == nil {
		t.Fatal("an answer to another question was taken")
	}
	if err := answer(asked.Id, "9"); err == nil {
		t.Fatal("a choice that there is not was taken")
	}
	if err := answer(asked.Id, "1"); err != nil {
		t.Fatal(err)
	}
	p.ok(on.Returnval, nil)
	if err := answer(asked.Id, "1"); err == nil {
		t.Fatal("a second answer was taken")
	}
}

func TestAPrivilegeThatIsDeniedIsMissedAndRefused(t *testing.T) {
	r := start(t, "tiny")
	p := r.peer("production")
	vm := p.site.morefs["web01"]
	r.must("POST", "/sites/production/deny", map[string]any{"privileges": []string{"VirtualMachine.Interact.PowerOn"}})
	ids := []string{"VirtualMachine.Interact.PowerOn", "VirtualMachine.Interact.PowerOff"}
	res, err := methods.HasPrivilegeOnEntities(bg, p, &types.HasPrivilegeOnEntities{
		This: *p.ServiceContent.AuthorizationManager, Entity: []types.ManagedObjectReference{vm}, SessionId: "x", PrivId: ids})
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range res.Returnval[0].PrivAvailability {
		if one.IsGranted != (one.PrivId != ids[0]) {
			t.Fatalf("told %+v", one)
		}
	}
	if _, err := methods.PowerOnVM_Task(bg, p, &types.PowerOnVM_Task{This: vm}); callFault(err) != "NoPermission" {
		t.Fatalf("power on answered %v", err)
	}
}

func TestConditionsAreShown(t *testing.T) {
	r := start(t, "tiny")
	p := r.peer("production")
	vm := p.site.morefs["web01"]
	r.must("POST", "/sites/production/vms/web01/condition", map[string]any{
		"template": true, "connection_state": "orphaned", "consolidation_needed": true, "vtpm": true,
		"passthrough": true, "sharing": "sharingMultiWriter", "linked_to": "[ds-production] gold/gold.vmdk"})
	var o mo.VirtualMachine
	p.get(vm, &o, "config", "runtime")
	kinds := 0
	for _, d := range o.Config.Hardware.Device {
		switch d.(type) {
		case *types.VirtualTPM, *types.VirtualPCIPassthrough:
			kinds++
		}
	}
	if !o.Config.Template || o.Runtime.ConnectionState != "orphaned" || kinds != 2 {
		t.Fatalf("shown %+v with %d devices", o.Runtime, kinds)
	}
	if !o.Runtime.ConsolidationNeeded {
		t.Fatal("consolidation is not shown")
	}
}

// find searches by path, as anybody would who has no reference.
func (p *peer) find(name string) types.ManagedObjectReference {
	res, err := methods.FindByInventoryPath(bg, p, &types.FindByInventoryPath{
		This: *p.ServiceContent.SearchIndex, InventoryPath: "/DC0/vm/" + name})
	if err != nil || res.Returnval == nil {
		p.r.t.Fatalf("find %s: %v", name, err)
	}
	return *res.Returnval
}

func TestReregisteredAVMHasAnotherReference(t *testing.T) {
	r := start(t, "tiny")
	before := r.peer("production").find("web01")
	r.must("POST", "/sites/production/vms/web01/reregister", nil)
	r.must("POST", "/sites/production/restart", nil)
	if after := r.peer("production").find("web01"); after == before {
		t.Fatalf("still %v", after)
	}
}

func TestDatastoreFilesAreForThoseWhoAreLoggedIn(t *testing.T) {
	r := start(t, "tiny")
	p := r.peer("production")
	u := *p.URL()
	u.Path, u.RawQuery = "/folder/web01/web01.vmx", "dcPath=DC0&dsName=ds-production"
	get := func(client *http.Client) int {
		res, err := client.Get(u.String())
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		return res.StatusCode
	}
	stranger := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	if got := get(stranger); got != http.StatusUnauthorized {
		t.Fatalf("a stranger got %d", got)
	}
	if got := get(&p.Client.Client.Client); got != http.StatusOK {
		t.Fatalf("we got %d", got)
	}
}
