package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/simulator/vpx"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// site is one simulated vCenter.
type site struct {
	lab       *lab
	name      string
	datastore string
	dsDir     string
	plain     bool
	uuid      string
	ctx       *simulator.Context
	svc       *simulator.Service
	client    *vim25.Client // in-process, for the lab's own calls
	inner     *simulator.Server
	gate      *gate
	server    *http.Server
	url       string
	finger    string
	pageSize  atomic.Int64
	clock     labClock
	counters  counters
	swaps     swapCount
	denied    atomic.Pointer[map[string]bool] // privileges that the account lacks
	dsMode    atomic.Pointer[string]          // maintenance of the datastore
	dsFree    atomic.Int64                    // -1: as the simulator says
	dsLost    atomic.Bool

	mu  sync.Mutex
	vms map[types.ManagedObjectReference]*vmState

	folders *object.DatacenterFolders
	pool    *object.ResourcePool
	morefs  map[string]types.ManagedObjectReference // VM name at the start -> moref
}

// morefStep separates the object numbers of the sites, so that a client that
// mixes up two vCenters finds nothing instead of the wrong object.
const morefStep = 1000

func (l *lab) newSite(ws worldSite, index int, uuid string) (*site, error) {
	s := &site{lab: l, name: ws.Name, datastore: ws.Datastore, uuid: uuid, plain: l.opt.plain,
		dsDir: filepath.Join(l.opt.root, "datastores", ws.Name, ws.Datastore),
		vms:   map[types.ManagedObjectReference]*vmState{}, morefs: map[string]types.ManagedObjectReference{}}
	s.pageSize.Store(2000)
	s.dsFree.Store(-1)
	if err := os.MkdirAll(s.dsDir, 0o700); err != nil {
		return nil, fmt.Errorf("datastore folder of %s: %w", ws.Name, err)
	}
	ctx, si := simulator.NewServiceInstance(simulator.NewContext(), vpx.ServiceContent, vpx.RootFolder)
	s.ctx = ctx
	si.Content.About.InstanceUuid = uuid
	si.Content.About.ApiVersion, si.Content.About.Version = "8.0.3.0", "8.0.3"
	si.Content.About.FullName = "VMware vCenter Server 8.0.3 (failback lab, simulated)"
	s.ownSettings()
	if !l.opt.equalUUIDs {
		s.burnRefs(index * morefStep)
	}
	m := simulator.VPX()
	m.Machine, m.Datastore, m.Host, m.Cluster, m.ClusterHost, m.Autostart = 0, 0, 0, 1, 2, false
	s.svc = simulator.New(ctx, si)
	m.Service = s.svc
	if err := m.CreateInfrastructure(ctx); err != nil {
		return nil, fmt.Errorf("inventory of %s: %w", ws.Name, err)
	}
	if err := s.prepareInventory(); err != nil {
		return nil, err
	}
	ctx.Map.Handler = s.handler
	if !s.plain {
		tm, ok := ctx.Map.Get(*si.Content.TaskManager).(*simulator.TaskManager)
		if !ok {
			return nil, fmt.Errorf("site %s: the simulator has no task manager of the expected kind", ws.Name)
		}
		ctx.Map.AddHandler(&hook{TaskManager: tm, site: s})
	}
	return s, nil
}

// ownSettings copies the options: the simulator shares one list of pointers
// among all vCenters of a process.
func (s *site) ownSettings() {
	om := s.ctx.Map.OptionManager()
	own := make([]types.BaseOptionValue, 0, len(om.Setting))
	for _, o := range om.Setting {
		v := *o.GetOptionValue()
		own = append(own, &v)
	}
	om.Setting = own
}

func (s *site) burnRefs(n int) {
	for range n {
		ref := s.ctx.Map.Put(&simulator.VirtualMachineSnapshot{}).Reference()
		s.ctx.Map.Remove(s.ctx, ref)
	}
}

// internal marks the lab's own calls: rules and counters are not for them.
func internal(why string) context.Context {
	return context.WithValue(context.Background(), keyInternal, why)
}

func (s *site) prepareInventory() error {
	ctx := internal("build")
	c, err := vim25.NewClient(ctx, s.svc)
	if err != nil {
		return fmt.Errorf("in-process client of %s: %w", s.name, err)
	}
	s.client = c
	for _, e := range s.ctx.Map.All("HostSystem") {
		dss, err := object.NewHostSystem(c, e.Reference()).ConfigManager().DatastoreSystem(ctx)
		if err != nil {
			return fmt.Errorf("datastore system of %s: %w", s.name, err)
		}
		if _, err := dss.CreateLocalDatastore(ctx, s.datastore, s.dsDir); err != nil {
			return fmt.Errorf("datastore %s of %s: %w", s.datastore, s.name, err)
		}
	}
	dc := object.NewDatacenter(c, s.ctx.Map.Any("Datacenter").Reference())
	if s.folders, err = dc.Folders(ctx); err != nil {
		return fmt.Errorf("folders of %s: %w", s.name, err)
	}
	cluster, ok := s.ctx.Map.Any("ClusterComputeResource").(*simulator.ClusterComputeResource)
	if !ok || cluster.ResourcePool == nil {
		return fmt.Errorf("site %s: no cluster with a resource pool", s.name)
	}
	s.pool = object.NewResourcePool(c, *cluster.ResourcePool)
	return nil
}

// listen opens the site on a free loopback port.
func (s *site) listen(ca *authority, user *url.Userinfo) error {
	cert, finger, err := ca.issue(s.name)
	if err != nil {
		return err
	}
	s.finger = finger
	s.svc.Listen = &url.URL{Host: "127.0.0.1:0", User: user}
	// The simulator's own listener cannot be made dead and alive again: it
	// is opened for its side effects, and its routes are served here.
	s.inner = s.svc.NewServer()
	_ = s.inner.Listener.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen for %s: %w", s.name, err)
	}
	s.gate = newGate(l)
	s.svc.Listen.Host, s.svc.Listen.Scheme = l.Addr().String(), "https"
	s.url = "https://" + l.Addr().String() + "/sdk"
	s.server = &http.Server{Handler: s.middleware(s.inner.Config.Handler), ReadHeaderTimeout: 30 * time.Second,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}},
		ErrorLog:  quietLog(s.lab.opt.verbose)}
	go func() {
		if err := s.server.Serve(tls.NewListener(s.gate, s.server.TLSConfig)); err != nil && !errors.Is(err, http.ErrServerClosed) {
			fmt.Fprintf(os.Stderr, "failback-lab: site %s stopped serving: %v\n", s.name, err)
		}
	}()
	return nil
}

// expireSessions ends every login, as an idle timeout would.
// sessions lists the keys of those who are logged in.
func (s *site) sessions() []string {
	var keys []string
	sm := s.ctx.Map.SessionManager()
	if view, ok := s.ctx.Session.Get(sm.Self).(*simulator.SessionManager); ok {
		for _, us := range view.SessionList {
			keys = append(keys, us.Key)
		}
	}
	return keys
}

func (s *site) expireSessions() int {
	ctx := s.freshContext()
	sm := s.ctx.Map.SessionManager()
	view, ok := s.ctx.Session.Get(sm.Self).(*simulator.SessionManager)
	if !ok {
		return 0
	}
	n := 0
	for _, us := range view.SessionList {
		req := &types.TerminateSession{This: sm.Self, SessionId: []string{us.Key}}
		if sm.TerminateSession(ctx, req).Fault() == nil {
			n++
		}
	}
	return n
}

// purgeTasks forgets finished tasks that are older than age, as vCenter does
// after about ten minutes.
func (s *site) purgeTasks(age time.Duration) int {
	ctx := s.freshContext()
	gone := map[types.ManagedObjectReference]bool{}
	for _, e := range s.ctx.Map.AllReference("Task") {
		t, ok := e.(*simulator.Task)
		if !ok {
			continue
		}
		ctx.WithLock(t, func() {
			done := t.Info.State == types.TaskInfoStateSuccess || t.Info.State == types.TaskInfoStateError
			if done && t.Info.CompleteTime != nil && time.Since(*t.Info.CompleteTime) >= age {
				gone[t.Self] = true
			}
		})
	}
	if len(gone) == 0 {
		return 0
	}
	for ref := range gone {
		s.ctx.Map.Remove(ctx, ref)
	}
	left := func(in []types.ManagedObjectReference) []types.ManagedObjectReference {
		out := []types.ManagedObjectReference{}
		for _, r := range in {
			if !gone[r] {
				out = append(out, r)
			}
		}
		return out
	}
	if tm := s.taskManager(); tm != nil {
		tm.Lock()
		ctx.Update(tm, []types.PropertyChange{{Name: "recentTask", Val: left(tm.RecentTask)}})
		tm.Unlock()
	}
	for _, kind := range []string{"VirtualMachine", "Folder"} {
		for _, e := range s.ctx.Map.All(kind) {
			obj, ok := s.ctx.Map.Get(e.Reference()).(mo.Entity)
			if !ok {
				continue
			}
			ctx.WithLock(obj, func() {
				ctx.Update(obj, []types.PropertyChange{{Name: "recentTask", Val: left(obj.Entity().RecentTask)}})
			})
		}
	}
	return len(gone)
}

func (s *site) taskManager() *simulator.TaskManager {
	for _, o := range s.ctx.Map.AllReference("TaskManager") {
		if tm, ok := o.(*simulator.TaskManager); ok {
			return tm
		}
	}
	return nil
}
