package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

type manifest struct {
	ControlURL   string                  `json:"control_url"`
	PID          int                     `json:"pid"`
	Root         string                  `json:"root"`
	CAFile       string                  `json:"ca_file"`
	Username     string                  `json:"username"`
	PasswordFile string                  `json:"password_file"`
	Plain        bool                    `json:"plain"`
	Sites        map[string]manifestSite `json:"sites"`
	Demo         *demoInfo               `json:"demo,omitempty"`
}

type manifestSite struct {
	URL          string                `json:"url"`
	InstanceUUID string                `json:"instance_uuid"`
	Fingerprint  string                `json:"certificate_sha256"`
	Datastores   map[string]string     `json:"datastores"`
	VMs          map[string]manifestVM `json:"vms"`
}

type manifestVM struct {
	Moref        string         `json:"moref"`
	Path         string         `json:"path"`
	InstanceUUID string         `json:"instance_uuid"`
	BiosUUID     string         `json:"bios_uuid"`
	Disks        []manifestDisk `json:"disks"`
}

type manifestDisk struct {
	Key      int32  `json:"key"`
	File     string `json:"file"`
	Capacity int64  `json:"capacity_bytes"`
}

func (l *lab) manifest() manifest {
	m := manifest{ControlURL: l.controlURL, PID: os.Getpid(), Root: l.opt.root, CAFile: l.ca.file, Username: l.opt.username,
		PasswordFile: l.passFile, Plain: l.opt.plain, Sites: map[string]manifestSite{}, Demo: l.world.demo}
	for _, s := range l.sites {
		ms := manifestSite{URL: s.url, InstanceUUID: s.uuid, Fingerprint: s.finger,
			Datastores: map[string]string{s.datastore: s.dsDir}, VMs: map[string]manifestVM{}}
		ctx := s.freshContext()
		for name, ref := range s.morefs {
			vm, ok := s.ctx.Map.Get(ref).(*simulator.VirtualMachine)
			if !ok {
				continue
			}
			ctx.WithLock(vm, func() {
				mv := manifestVM{Moref: ref.Value, Path: "/DC0/vm/" + name, InstanceUUID: vm.Config.InstanceUuid, BiosUUID: vm.Config.Uuid, Disks: []manifestDisk{}}
				for _, dev := range vm.Config.Hardware.Device {
					if d, ok := dev.(*types.VirtualDisk); ok {
						if b, ok := d.Backing.(*types.VirtualDiskFlatVer2BackingInfo); ok {
							mv.Disks = append(mv.Disks, manifestDisk{Key: d.Key, File: b.FileName, Capacity: d.CapacityInBytes})
						}
					}
				}
				ms.VMs[name] = mv
			})
		}
		m.Sites[s.name] = ms
	}
	return m
}

// writeManifest appears whole or not at all: its existence means ready.
func (l *lab) writeManifest() error {
	b, err := json.MarshalIndent(l.manifest(), "", "  ")
	if err != nil {
		return fmt.Errorf("encode the manifest: %w", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(l.opt.manifest), ".manifest-*")
	if err != nil {
		return fmt.Errorf("write the manifest: %w: does its folder exist?", err)
	}
	_, err = tmp.Write(append(b, '\n'))
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), l.opt.manifest)
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
		return fmt.Errorf("write the manifest: %w", err)
	}
	return nil
}
