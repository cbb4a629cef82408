package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vmware/govmomi/session"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// rig is a running lab and a client on each site.
type rig struct {
	t *testing.T
	l *lab
}

func start(t *testing.T, world string, more ...func(*options)) *rig {
	t.Helper()
	o, err := parseOptions([]string{"--root", filepath.Join(t.TempDir(), "a root"), "--world", world})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range more {
		f(&o)
	}
	l, err := startLab(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.close)
	return &rig{t, l}
}

// peer is one logged-in vSphere client.
type peer struct {
	*vim25.Client
	r    *rig
	site *site
}

func (r *rig) peer(site string) *peer {
	r.t.Helper()
	s := r.l.byName[site]
	p, err := r.login(s, r.l.opt.username, r.secret())
	if err != nil {
		r.t.Fatalf("login to %s: %v", site, err)
	}
	return p
}

func (r *rig) secret() string {
	b, err := os.ReadFile(r.l.passFile)
	if err != nil {
		r.t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func (r *rig) login(s *site, user, pass string) (*peer, error) {
	u, err := url.Parse(s.url)
	if err != nil {
		return nil, err
	}
	sc := soap.NewClient(u, false)
	if err := sc.SetRootCAs(r.l.ca.file); err != nil {
		return nil, err
	}
	c, err := vim25.NewClient(context.Background(), sc)
	if err != nil {
		return nil, err
	}
	return &peer{c, r, s}, session.NewManager(c).Login(context.Background(), url.UserPassword(user, pass))
}

func (r *rig) dr() (*peer, types.ManagedObjectReference) {
	p := r.peer("dr")
	return p, p.site.morefs["web01-replica"]
}

var bg = context.Background()

// task waits for a task and gives its result or fault.
func (p *peer) task(ref types.ManagedObjectReference) (types.AnyType, types.BaseMethodFault) {
	p.r.t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(3 * time.Millisecond) {
		var t mo.Task
		p.get(ref, &t, "info")
		switch t.Info.State {
		case types.TaskInfoStateSuccess:
			return t.Info.Result, nil
		case types.TaskInfoStateError:
			return nil, t.Info.Error.Fault
		}
	}
	p.r.t.Fatalf("task %s does not end", ref.Value)
	return nil, nil
}

// ok is task for those that must succeed.
func (p *peer) ok(ref types.ManagedObjectReference, err error) types.AnyType {
	p.r.t.Helper()
	if err != nil {
		p.r.t.Fatalf("call failed: %v", err)
	}
	res, fault := p.task(ref)
	if fault != nil {
		p.r.t.Fatalf("task failed: %T", fault)
	}
	return res
}

// refused checks that a task fails with a fault of the wanted type.
func (p *peer) refused(want string, ref types.ManagedObjectReference, err error) {
	p.r.t.Helper()
	if err != nil {
		p.r.t.Fatalf("call failed: %v", err)
	}
	_, fault := p.task(ref)
	if got := faultName(fault); got != want {
		p.r.t.Fatalf("task fault is %s, want %s", got, want)
	}
}

func faultName(f any) string {
	return strings.TrimPrefix(strings.TrimPrefix(fmt.Sprintf("%T", f), "*"), "types.")
}

// callFault names the fault of a call that failed.
func callFault(err error) string {
	if soap.IsSoapFault(err) {
		return faultName(soap.ToSoapFault(err).VimFault())
	}
	return fmt.Sprintf("no fault: %v", err)
}

func (p *peer) get(ref types.ManagedObjectReference, dst any, paths ...string) {
	p.r.t.Helper()
	pc := p.ServiceContent.PropertyCollector
	req := types.RetrievePropertiesEx{This: pc, SpecSet: []types.PropertyFilterSpec{{
		ObjectSet: []types.ObjectSpec{{Obj: ref}},
		PropSet:   []types.PropertySpec{{Type: ref.Type, PathSet: paths}}}}}
	res, err := methods.RetrievePropertiesEx(bg, p, &req)
	if err != nil {
		p.r.t.Fatalf("read %s: %v", ref.Value, err)
	}
	if res.Returnval == nil || len(res.Returnval.Objects) == 0 {
		p.r.t.Fatalf("read %s: nothing", ref.Value)
	}
	if err := mo.LoadObjectContent(res.Returnval.Objects, dst); err != nil {
		p.r.t.Fatal(err)
	}
}

func (p *peer) vm(ref types.ManagedObjectReference) mo.VirtualMachine {
	p.r.t.Helper()
	var vm mo.VirtualMachine
	p.get(ref, &vm, "name", "config", "runtime.powerState", "runtime.bootTime", "snapshot", "guest.toolsRunningStatus", "recentTask", "summary.config")
	return vm
}

func disksOf(cfg *types.VirtualMachineConfigInfo) map[int32]*types.VirtualDisk {
	out := map[int32]*types.VirtualDisk{}
	for _, d := range cfg.Hardware.Device {
		if disk, ok := d.(*types.VirtualDisk); ok {
			out[disk.Key] = disk
		}
	}
	return out
}

func backing(d *types.VirtualDisk) *types.VirtualDiskFlatVer2BackingInfo {
	return d.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
}

// content reads a disk of a VM as any foreign reader would.
func (p *peer) content(file string) []byte {
	p.r.t.Helper()
	flat, err := p.site.flatPath(file)
	if err != nil {
		p.r.t.Fatal(err)
	}
	b, err := os.ReadFile(flat)
	if err != nil {
		p.r.t.Fatal(err)
	}
	return b
}

func (p *peer) live(ref types.ManagedObjectReference, key int32) []byte {
	p.r.t.Helper()
	return p.content(backing(disksOf(p.vm(ref).Config)[key]).FileName)
}

func (p *peer) poke(ref types.ManagedObjectReference, key int32, off int64, data []byte) {
	p.r.t.Helper()
	flat, _ := p.site.flatPath(backing(disksOf(p.vm(ref).Config)[key]).FileName)
	f, err := os.OpenFile(flat, os.O_WRONLY, 0)
	if err != nil {
		p.r.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(data, off); err != nil {
		p.r.t.Fatal(err)
	}
}

func (p *peer) snapshot(ref types.ManagedObjectReference, name string) types.ManagedObjectReference {
	p.r.t.Helper()
	res, err := methods.CreateSnapshot_Task(bg, p, &types.CreateSnapshot_Task{This: ref, Name: name, Description: "d " + name})
	if err != nil {
		p.r.t.Fatal(err)
	}
	return p.ok(res.Returnval, nil).(types.ManagedObjectReference)
}

func (p *peer) reconfig(ref types.ManagedObjectReference, spec types.VirtualMachineConfigSpec) (types.ManagedObjectReference, error) {
	res, err := methods.ReconfigVM_Task(bg, p, &types.ReconfigVM_Task{This: ref, Spec: spec})
	if err != nil {
		return types.ManagedObjectReference{}, err
	}
	return res.Returnval, nil
}

func (p *peer) powerOn(ref types.ManagedObjectReference) (types.ManagedObjectReference, error) {
	res, err := methods.PowerOnVM_Task(bg, p, &types.PowerOnVM_Task{This: ref})
	if err != nil {
		return types.ManagedObjectReference{}, err
	}
	return res.Returnval, nil
}

func (p *peer) powerOff(ref types.ManagedObjectReference) (types.ManagedObjectReference, error) {
	res, err := methods.PowerOffVM_Task(bg, p, &types.PowerOffVM_Task{This: ref})
	if err != nil {
		return types.ManagedObjectReference{}, err
	}
	return res.Returnval, nil
}

func (p *peer) revert(snap types.ManagedObjectReference) (types.ManagedObjectReference, error) {
	res, err := methods.RevertToSnapshot_Task(bg, p, &types.RevertToSnapshot_Task{This: snap})
	if err != nil {
		return types.ManagedObjectReference{}, err
	}
	return res.Returnval, nil
}

func (p *peer) remove(snap types.ManagedObjectReference, children bool) (types.ManagedObjectReference, error) {
	res, err := methods.RemoveSnapshot_Task(bg, p, &types.RemoveSnapshot_Task{This: snap, RemoveChildren: children})
	if err != nil {
		return types.ManagedObjectReference{}, err
	}
	return res.Returnval, nil
}

// ctl talks to the control endpoint.
func (r *rig) ctl(method, path string, body any) (int, map[string]any) {
	r.t.Helper()
	var in io.Reader
	if body != nil {
		b, _ := json.Marshal(body)
		in = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, r.l.controlURL+path, in)
	if err != nil {
		r.t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	out := map[string]any{}
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil {
		r.t.Fatal(err)
	}
	return res.StatusCode, out
}

func (r *rig) must(method, path string, body any) map[string]any {
	r.t.Helper()
	code, out := r.ctl(method, path, body)
	if code != 200 {
		r.t.Fatalf("%s %s: %d %v", method, path, code, out)
	}
	return out
}

func (r *rig) fault(rule map[string]any) int {
	r.t.Helper()
	return int(r.must("POST", "/faults", rule)["id"].(float64))
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if f() {
			return
		}
	}
	t.Fatalf("never happened: %s", what)
}
