package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
)

// world describes what exists before anybody connects.
type world struct {
	Sites []worldSite `json:"sites"`

	demo *demoInfo // facts for proof scripts, only in the demo world
}

type worldSite struct {
	Name      string    `json:"name"`
	Datastore string    `json:"datastore"`
	VMs       []worldVM `json:"vms"`
	// Fillers are further VMs that are off and that nobody is interested in.
	Fillers int `json:"fillers"`
}

type worldVM struct {
	Name     string      `json:"name"`
	Power    string      `json:"power"`
	Tools    *bool       `json:"tools"`
	Tracking bool        `json:"tracking"`
	MemoryMB int64       `json:"memory_mb"`
	CPUs     int32       `json:"cpus"`
	Disks    []worldDisk `json:"disks"`
	Guest    *worldGuest `json:"guest"`
}

type worldGuest struct {
	IntervalMS int `json:"interval_ms"`
}

type worldDisk struct {
	SizeBytes  int64         `json:"size_bytes"`
	Image      string        `json:"image"`
	Seed       *uint64       `json:"seed"`
	Holes      []worldHole   `json:"holes"`
	CopyOf     string        `json:"copy_of"`
	Changes    []worldChange `json:"changes"`
	GuestFiles []guestFile   `json:"guest_files"`

	move bool // the image belongs to the lab and may be renamed into place
}

type worldHole struct {
	Offset int64 `json:"offset"`
	Length int64 `json:"length"`
}

type worldChange struct {
	Offset int64  `json:"offset"`
	Length int64  `json:"length"`
	Seed   uint64 `json:"seed"`
}

// guestFile is a preallocated file of the guest whose extents the lab may
// overwrite without touching file system metadata.
type guestFile struct {
	Path    string     `json:"path"`
	Extents [][2]int64 `json:"extents"`
	// Manual files are written only on request, never by the running guest.
	Manual bool `json:"manual"`
}

var nameRule = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._ -]{0,62}$`)

func loadWorld(o options) (*world, error) {
	switch o.world {
	case "tiny":
		return tinyWorld(), nil
	case "demo":
		return demoWorld(o)
	}
	data, err := os.ReadFile(o.world)
	if err != nil {
		return nil, fmt.Errorf("read world: %w: give --world an existing JSON file, 'demo' or 'tiny'", err)
	}
	w := new(world)
	dec := json.NewDecoder(bytes.NewReader(data))
	// A misspelt key would silently give another world than the test means.
	dec.DisallowUnknownFields()
	if err := dec.Decode(w); err != nil {
		return nil, fmt.Errorf("world %s: %w: correct the JSON", o.world, err)
	}
	return w, w.check()
}

func (w *world) check() error {
	if len(w.Sites) == 0 {
		return fmt.Errorf("the world has no sites: add at least one")
	}
	seen := map[string]bool{}
	for i := range w.Sites {
		s := &w.Sites[i]
		if !nameRule.MatchString(s.Name) || strings.Contains(s.Name, " ") || seen[s.Name] {
			return fmt.Errorf("site %d has the bad or repeated name %q: use distinct letters, digits, dot, dash", i, s.Name)
		}
		seen[s.Name] = true
		if s.Datastore == "" {
			s.Datastore = "ds-" + s.Name
		}
		for n := range s.Fillers {
			s.VMs = append(s.VMs, worldVM{Name: fmt.Sprintf("filler-%05d", n), Disks: []worldDisk{{SizeBytes: 64 << 10}}})
		}
		names := map[string]bool{}
		for j := range s.VMs {
			v := &s.VMs[j]
			if !nameRule.MatchString(v.Name) || names[v.Name] {
				return fmt.Errorf("site %s: VM %d has the bad or repeated name %q", s.Name, j, v.Name)
			}
			names[v.Name] = true
			if err := v.check(s.Name); err != nil {
				return err
			}
		}
	}
	return nil
}

func (v *worldVM) check(site string) error {
	switch v.Power {
	case "":
		v.Power = "off"
	case "on", "off":
	default:
		return fmt.Errorf("%s/%s: power is %q: use on or off", site, v.Name, v.Power)
	}
	if v.MemoryMB == 0 {
		v.MemoryMB = 512
	}
	if v.CPUs == 0 {
		v.CPUs = 1
	}
	if len(v.Disks) > 15 {
		return fmt.Errorf("%s/%s: %d disks: one controller holds at most 15", site, v.Name, len(v.Disks))
	}
	for i, d := range v.Disks {
		where := fmt.Sprintf("%s/%s disk %d", site, v.Name, i)
		if d.SizeBytes <= 0 || d.SizeBytes%512 != 0 {
			return fmt.Errorf("%s: size_bytes %d must be a positive multiple of 512", where, d.SizeBytes)
		}
		for _, c := range d.Changes {
			if !inside(c.Offset, c.Length, d.SizeBytes) {
				return fmt.Errorf("%s: change at %d+%d leaves the disk", where, c.Offset, c.Length)
			}
		}
		for _, h := range d.Holes {
			if !inside(h.Offset, h.Length, d.SizeBytes) {
				return fmt.Errorf("%s: hole at %d+%d leaves the disk", where, h.Offset, h.Length)
			}
		}
		for _, f := range d.GuestFiles {
			for _, e := range f.Extents {
				if !inside(e[0], e[1], d.SizeBytes) {
					return fmt.Errorf("%s: extent %d+%d of %s leaves the disk", where, e[0], e[1], f.Path)
				}
			}
		}
	}
	return nil
}

func inside(off, length, size int64) bool {
	return off >= 0 && length > 0 && off <= size && length <= size-off
}

// tinyWorld is small enough for unit tests, with one disk that is no whole
// number of blocks or kibibytes.
func tinyWorld() *world {
	const mib = 1 << 20
	s1, s2 := uint64(11), uint64(12)
	yes := true
	w := &world{Sites: []worldSite{
		{Name: "production", Datastore: "ds-production", VMs: []worldVM{{
			Name: "web01", Power: "off", Tools: &yes,
			Disks: []worldDisk{
				{SizeBytes: mib, Seed: &s1, Holes: []worldHole{{Offset: 512 << 10, Length: 256 << 10}}},
				{SizeBytes: mib + 512, Seed: &s2},
			}}}},
		{Name: "dr", Datastore: "ds-dr", VMs: []worldVM{{
			Name: "web01-replica", Power: "on", Tools: &yes,
			Disks: []worldDisk{
				{SizeBytes: mib, CopyOf: "production/web01/0", Changes: []worldChange{{Offset: 70000, Length: 5000, Seed: 21}, {Offset: 600 << 10, Length: 512, Seed: 22}},
					GuestFiles: []guestFile{{Path: "/var/log/journal.bin", Extents: [][2]int64{{131072, 65536}, {262144, 4096}}}}},
				{SizeBytes: mib + 512, CopyOf: "production/web01/1", Changes: []worldChange{{Offset: mib, Length: 512, Seed: 23}},
					GuestFiles: []guestFile{{Path: "/srv/late.txt", Extents: [][2]int64{{8192, 4096}}, Manual: true}}},
			}}}},
	}}
	if err := w.check(); err != nil {
		panic(err) // a constant of this program
	}
	return w
}
