package main

import (
	"os"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// vmExtension carries the VM methods the simulator lacks.
type vmExtension struct {
	nopLock
	Self types.ManagedObjectReference
	site *site
}

func (e *vmExtension) Reference() types.ManagedObjectReference { return e.Self }

func (e *vmExtension) QueryChangedDiskAreas(_ *simulator.Context, req *types.QueryChangedDiskAreas) soap.HasFault {
	body := new(methods.QueryChangedDiskAreasBody)
	info, fault := e.changedAreas(req)
	if fault != nil {
		body.Fault_ = simulator.Fault("", fault)
		return body
	}
	body.Res = &types.QueryChangedDiskAreasResponse{Returnval: *info}
	return body
}

func invalid(property string) types.BaseMethodFault {
	return &types.InvalidArgument{InvalidProperty: property}
}

func (e *vmExtension) changedAreas(req *types.QueryChangedDiskAreas) (*types.DiskChangeInfo, types.BaseMethodFault) {
	st := e.site.state(e.Self)
	if st == nil {
		return nil, &types.ManagedObjectNotFound{Obj: e.Self}
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	d := st.disks[req.DeviceKey]
	file, capacity := "", int64(0)
	var at []uint64 // the instant asked for; nil means now
	if req.Snapshot != nil {
		ss := st.snaps[*req.Snapshot]
		if ss == nil {
			return nil, &types.ManagedObjectNotFound{Obj: *req.Snapshot}
		}
		sd, ok := ss.disks[req.DeviceKey]
		if !ok {
			return nil, invalid("deviceKey")
		}
		file, capacity = sd.file, sd.capacity
		if fault := checkQuery(req, capacity); fault != nil {
			return nil, fault
		}
		if d == nil || d.track == nil {
			return nil, fileFault(file)
		}
		n, ok := d.track.epochOf(sd.changeID)
		if !ok {
			return nil, fileFault(file) // taken before tracking began its present life
		}
		at = d.track.marks[n]
	} else {
		if d == nil {
			return nil, invalid("deviceKey")
		}
		file, capacity = d.file, d.capacity
		if fault := checkQuery(req, capacity); fault != nil {
			return nil, fault
		}
		if st.running {
			return nil, invalid("snapshot") // a running VM is asked through a snapshot
		}
		if d.track == nil {
			return nil, fileFault(file)
		}
	}
	spans, fault := st.compare(d, req.ChangeId, file, capacity, at)
	if fault != nil {
		return nil, fault
	}
	areas, length := page(spans, req.StartOffset, capacity, int(e.site.pageSize.Load()))
	info := &types.DiskChangeInfo{StartOffset: req.StartOffset, Length: length}
	for _, a := range areas {
		info.ChangedArea = append(info.ChangedArea, types.DiskChangeExtent{Start: a.off, Length: a.length})
	}
	return info, nil
}

func checkQuery(req *types.QueryChangedDiskAreas, capacity int64) types.BaseMethodFault {
	if req.StartOffset < 0 || req.StartOffset >= capacity {
		return invalid("startOffset")
	}
	if req.ChangeId != "*" && !validChangeID(req.ChangeId) {
		return invalid("changeId")
	}
	return nil
}

// compare lists what changed between a named instant and another one, or
// now; "*" means what is allocated.
func (st *vmState) compare(d *diskState, changeID, file string, capacity int64, at []uint64) ([]span, types.BaseMethodFault) {
	flat, err := st.site.flatPath(file)
	if err != nil {
		return nil, fileFault(file)
	}
	if changeID == "*" {
		f, err := os.Open(flat)
		if err != nil {
			return nil, fileFault(file)
		}
		defer f.Close()
		spans, err := dataSpans(f, capacity)
		if err != nil {
			complain("allocated areas: %v", err)
			return nil, fileFault(file)
		}
		return roundSpans(spans, capacity), nil
	}
	n, ok := d.track.epochOf(changeID)
	if !ok {
		return nil, fileFault(file)
	}
	if at == nil {
		if at, err = hashBlocks(flat); err != nil {
			complain("changed areas: %v", err)
			return nil, fileFault(file)
		}
	}
	return changedSpans(d.track.marks[n], at, capacity), nil
}

func fileSize(name string) int64 {
	fi, err := os.Stat(name)
	if err != nil {
		return 0
	}
	return fi.Size()
}
