package main

import (
	"fmt"
	"os"
	"sync/atomic"
	"time"
)

// guest plays the operating system of a running VM: it overwrites records
// inside preallocated files, so that file systems on the disks stay clean.
type guest struct {
	st       *vmState
	interval time.Duration // 0: the guest writes nothing by itself
	enabled  bool
	stopCh   chan struct{}
	done     chan struct{}
	records  atomic.Int64
	seed     uint64
}

const recordSize = 512

func newGuest(st *vmState) *guest { return &guest{st: st, seed: 1, enabled: true} }

// start begins writing; call with mu held and the VM running.
func (g *guest) start() {
	if g.stopCh != nil || g.interval <= 0 || !g.enabled || len(g.targets()) == 0 {
		return
	}
	g.seed++
	g.stopCh, g.done = make(chan struct{}), make(chan struct{})
	go g.loop(g.stopCh, g.done, g.interval, g.seed)
}

// halt ends the writing and returns a channel that closes when the last
// write is over. Call with mu held, wait without it.
func (g *guest) halt() <-chan struct{} {
	if g.stopCh == nil {
		none := make(chan struct{})
		close(none)
		return none
	}
	close(g.stopCh)
	d := g.done
	g.stopCh, g.done = nil, nil
	return d
}

type guestTarget struct {
	disk *diskState
	off  int64
}

// targets are the record slots of all files the guest writes by itself.
func (g *guest) targets() []guestTarget {
	var out []guestTarget
	for _, d := range g.st.ordered() {
		for _, f := range d.guestFiles {
			if f.Manual {
				continue
			}
			for _, e := range f.Extents {
				for o := int64(0); o+recordSize <= e[1]; o += recordSize {
					out = append(out, guestTarget{d, e[0] + o})
				}
			}
		}
	}
	return out
}

func (g *guest) loop(stop, done chan struct{}, interval time.Duration, seed uint64) {
	defer close(done)
	src := seededSource(seed)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	var buf [recordSize]byte
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		g.st.mu.Lock()
		select {
		case <-stop: // halted while we waited for the lock
			g.st.mu.Unlock()
			return
		default:
		}
		if t := g.targets(); len(t) > 0 {
			_, _ = src.Read(buf[:])
			at := t[int(src.Uint64()%uint64(len(t)))]
			if g.st.writeDisk(at.disk, at.off, buf[:]) == nil {
				g.records.Add(1)
			}
		}
		g.st.mu.Unlock()
	}
}

// writeDisk changes the live content; call with mu held.
func (st *vmState) writeDisk(d *diskState, off int64, data []byte) error {
	if !inside(off, int64(len(data)), d.capacity) {
		return fmt.Errorf("write of %d bytes at %d leaves disk %d of %d bytes", len(data), off, d.index, d.capacity)
	}
	flat, err := st.site.flatPath(d.file)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(flat, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("open live disk: %w", err)
	}
	if _, err = f.WriteAt(data, off); err != nil {
		_ = f.Close()
		return fmt.Errorf("write live disk: %w", err)
	}
	return f.Close()
}

// stopGuest ends the guest's writing and waits for the last write.
func (st *vmState) stopGuest() {
	st.mu.Lock()
	d := st.guest.halt()
	st.mu.Unlock()
	<-d
}
