package main

import (
	"net/http"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// dsExtension keeps a free space that a test has set: the simulator's
// refresh would make the datastore large and empty again.
type dsExtension struct {
	nopLock
	Self types.ManagedObjectReference
	site *site
}

func (e *dsExtension) Reference() types.ManagedObjectReference { return e.Self }

func (e *dsExtension) RefreshDatastore(ctx *simulator.Context, req *types.RefreshDatastore) soap.HasFault {
	e.site.publishSpace(ctx)
	return &methods.RefreshDatastoreBody{Res: &types.RefreshDatastoreResponse{}}
}

// publishSpace shows the free space and the condition a test has chosen.
func (s *site) publishSpace(ctx *simulator.Context) {
	for _, e := range s.ctx.Map.All("Datastore") {
		ds, ok := e.(*simulator.Datastore)
		if !ok {
			continue
		}
		ctx.WithLock(ds, func() {
			changes := []types.PropertyChange{
				{Name: "summary.accessible", Val: !s.dsLost.Load()},
			}
			if mode := s.dsMode.Load(); mode != nil {
				changes = append(changes, types.PropertyChange{Name: "summary.maintenanceMode", Val: *mode})
			}
			if free := s.dsFree.Load(); free >= 0 {
				changes = append(changes, types.PropertyChange{Name: "summary.freeSpace", Val: free})
				ds.Info.GetDatastoreInfo().FreeSpace = free
			}
			ctx.Update(ds, changes)
		})
	}
}

func (s *site) serveDatastore(r *http.Request) (any, error) {
	var in struct {
		FreeBytes  *int64 `json:"free_bytes"`
		Accessible *bool  `json:"accessible"`
		// "normal", "enteringMaintenance" or "inMaintenance"
		Maintenance string `json:"maintenance"`
	}
	if err := readJSON(r, &in); err != nil {
		return nil, err
	}
	if in.FreeBytes != nil {
		if *in.FreeBytes < 0 {
			return nil, failed(400, "free_bytes must not be negative")
		}
		s.dsFree.Store(*in.FreeBytes)
	}
	if in.Accessible != nil {
		s.dsLost.Store(!*in.Accessible)
	}
	if in.Maintenance != "" {
		s.dsMode.Store(&in.Maintenance)
	}
	s.publishSpace(s.freshContext())
	return reply{"ok": true, "free_bytes": s.dsFree.Load(), "accessible": !s.dsLost.Load()}, nil
}
