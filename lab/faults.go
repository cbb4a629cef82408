package main

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// faultRule says what goes wrong, for which calls, and how often.
type faultRule struct {
	ID          int     `json:"id"`
	Site        string  `json:"site"`
	Method      string  `json:"method"`
	Object      string  `json:"object"`
	Skip        int     `json:"skip"`
	Count       int     `json:"count"` // 0: without end
	Probability float64 `json:"probability"`
	Kind        string  `json:"kind"`
	Fault       string  `json:"fault"`
	Message     string  `json:"message"`
	Seconds     float64 `json:"seconds"`
	WaitTask    bool    `json:"wait_task"`

	Seen    int  `json:"seen"` // calls that matched, also those skipped
	Hits    int  `json:"hits"` // calls that were hit
	Holding bool `json:"holding"`
	held    int
	release chan struct{}
}

var kindsInCall = []string{"fault", "not-authenticated", "task-fault", "task-delay"}
var kindsInHTTP = []string{"delay", "http-503", "drop-before", "drop-after", "hold-before", "hold-after"}

type faultTable struct {
	mu    sync.Mutex
	next  int
	rules []*faultRule
}

func newFaultTable() *faultTable { return &faultTable{next: 1} }

func (t *faultTable) add(r *faultRule, l *lab) error {
	if r.Site != "" && r.Site != "*" && l.byName[r.Site] == nil {
		return fmt.Errorf("no site %q: use one of the manifest's sites, or leave site out for all", r.Site)
	}
	if !slices.Contains(kindsInCall, r.Kind) && !slices.Contains(kindsInHTTP, r.Kind) {
		return fmt.Errorf("unknown kind %q: use one of %s", r.Kind, strings.Join(append(slices.Clone(kindsInCall), kindsInHTTP...), ", "))
	}
	if r.Kind == "fault" || r.Kind == "task-fault" {
		if _, err := makeFault(r.Fault, types.ManagedObjectReference{}); err != nil {
			return err
		}
	}
	if (r.Kind == "delay" || r.Kind == "task-delay") && r.Seconds <= 0 {
		return fmt.Errorf("kind %s needs seconds greater than 0", r.Kind)
	}
	if r.Method == "" {
		r.Method = "*"
	}
	if r.Probability <= 0 {
		r.Probability = 1
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	r.ID, r.Seen, r.Hits, r.Holding, r.release = t.next, 0, 0, false, make(chan struct{})
	t.next++
	t.rules = append(t.rules, r)
	return nil
}

// match returns the first rule of the given kinds that hits this call.
func (t *faultTable) match(s *site, kinds []string, method string, concerns func(object string) bool) *faultRule {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range t.rules {
		if !slices.Contains(kinds, r.Kind) || r.Site != "" && r.Site != "*" && r.Site != s.name || r.Method != "*" && r.Method != method {
			continue
		}
		if strings.HasPrefix(r.Kind, "task-") && !strings.HasSuffix(method, "_Task") {
			continue
		}
		if r.Object != "" && !concerns(r.Object) {
			continue
		}
		if r.Count > 0 && r.Hits >= r.Count {
			continue
		}
		r.Seen++
		if r.Seen <= r.Skip || r.Probability < 1 && rand.Float64() >= r.Probability {
			continue
		}
		r.Hits++
		return r
	}
	return nil
}

// onCall applies the rules that speak SOAP.
func (t *faultTable) onCall(s *site, m *simulator.Method, c *call) types.BaseMethodFault {
	r := t.match(s, kindsInCall, m.Name, func(o string) bool { return s.concerns(o, m.This, nil) })
	if r == nil {
		return nil
	}
	switch r.Kind {
	case "task-delay":
		c.taskDelay = r
		return nil
	case "not-authenticated":
		this := m.This
		return &types.NotAuthenticated{NoPermission: types.NoPermission{Object: &this, PrivilegeId: "System.View"}}
	}
	f, err := makeFault(r.Fault, m.This)
	if err != nil {
		return nil // refused when the rule was added
	}
	setMessage(f, r.Message)
	if r.Kind == "task-fault" {
		c.taskFault = f
		return nil
	}
	return f
}

// concerns tells whether a call is about an object, named by VM name or
// moref: the target itself, the VM of a target snapshot, or, in a call on a
// collector, an object that the request mentions.
func (s *site) concerns(object string, this types.ManagedObjectReference, body []byte) bool {
	if this.Value == object {
		return true
	}
	ref := this
	if snap, ok := s.ctx.Map.Get(this).(*simulator.VirtualMachineSnapshot); ok {
		ref = snap.Vm
	}
	if ref.Value == object {
		return true
	}
	if st := s.state(ref); st != nil {
		return st.vmName() == object
	}
	moref := object
	if st := s.byName(object); st != nil {
		moref = st.ref.Value
	}
	return len(body) > 0 && strings.Contains(string(body), ">"+moref+"<")
}

// makeFault builds a fault by its vSphere name with the required fields set:
// clients refuse faults that lack them.
func makeFault(name string, this types.ManagedObjectReference) (types.BaseMethodFault, error) {
	typ, ok := types.TypeFunc()(name)
	if !ok {
		return nil, fmt.Errorf("unknown fault %q: use a vSphere fault name such as TaskInProgress", name)
	}
	v := reflect.New(typ)
	f, ok := v.Interface().(types.BaseMethodFault)
	if !ok {
		return nil, fmt.Errorf("%q is a vSphere type but no fault", name)
	}
	fillRequired(v.Elem(), this)
	return f, nil
}

// setMessage carries a rule's text: some faults can only be told apart by it.
func setMessage(f types.BaseMethodFault, text string) {
	if text == "" {
		return
	}
	f.GetMethodFault().FaultMessage = []types.LocalizableMessage{{Key: "lab.injected", Message: text}}
	if r := reflect.ValueOf(f).Elem().FieldByName("Reason"); r.IsValid() && r.Kind() == reflect.String {
		r.SetString(text)
	}
}

func fillRequired(v reflect.Value, this types.ManagedObjectReference) {
	refType := reflect.TypeFor[types.ManagedObjectReference]()
	for i := range v.NumField() {
		f, info := v.Field(i), v.Type().Field(i)
		if strings.Contains(info.Tag.Get("xml"), "omitempty") {
			continue
		}
		switch {
		case f.Type() == refType:
			if this.Type == "" {
				this = types.ManagedObjectReference{Type: "VirtualMachine", Value: "vm-0"}
			}
			ref := this
			// Clients check the type of these, and look the object up.
			switch info.Name {
			case "Task", "Host", "Datastore":
				kind := map[string]string{"Task": "Task", "Host": "HostSystem", "Datastore": "Datastore"}[info.Name]
				ref = types.ManagedObjectReference{Type: kind, Value: strings.ToLower(info.Name) + "-0"}
			}
			f.Set(reflect.ValueOf(ref))
		case f.Type() == reflect.TypeFor[types.VirtualMachinePowerState]():
			f.SetString(string(types.VirtualMachinePowerStatePoweredOff))
		case info.Anonymous && f.Kind() == reflect.Struct:
			fillRequired(f, this)
		case f.Kind() == reflect.String && f.String() == "" && f.Type() == reflect.TypeFor[string]():
			f.SetString("injected by the lab")
		}
	}
}

func (t *faultTable) get(id int) (faultRule, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range t.rules {
		if r.ID == id {
			return *r, true
		}
	}
	return faultRule{}, false
}

func (t *faultTable) all() []faultRule {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := []faultRule{}
	for _, r := range t.rules {
		out = append(out, *r)
	}
	return out
}

// hold blocks until the rule is released or removed, or the client is gone.
func (t *faultTable) hold(r *faultRule, gone <-chan struct{}) {
	t.mu.Lock()
	r.held++
	r.Holding = true
	ch := r.release
	t.mu.Unlock()
	select {
	case <-ch:
	case <-gone:
	}
	t.mu.Lock()
	r.held--
	r.Holding = r.held > 0
	t.mu.Unlock()
}

// free lets go what a rule holds now; later calls are held again.
func (t *faultTable) free(id int) (found bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range t.rules {
		if r.ID == id {
			close(r.release)
			r.release = make(chan struct{})
			return true
		}
	}
	return false
}

func (t *faultTable) remove(id int) (found bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, r := range t.rules {
		if r.ID == id {
			close(r.release)
			t.rules = slices.Delete(t.rules, i, i+1)
			return true
		}
	}
	return false
}

func (t *faultTable) clear() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range t.rules {
		close(r.release)
	}
	t.rules = nil
}
