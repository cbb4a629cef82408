package main

import (
	"net"
	"sync"
)

// gate is a listener that can be made dead: while it is down, every
// connection is reset at once and those that existed are cut. The port stays
// ours, so that the site comes back under the same address.
type gate struct {
	net.Listener
	mu    sync.Mutex
	down  bool
	conns map[*gateConn]struct{}
}

type gateConn struct {
	net.Conn
	gate *gate
}

func newGate(l net.Listener) *gate {
	return &gate{Listener: l, conns: map[*gateConn]struct{}{}}
}

func (g *gate) Accept() (net.Conn, error) {
	for {
		c, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		g.mu.Lock()
		if g.down {
			g.mu.Unlock()
			reset(c)
			continue
		}
		gc := &gateConn{Conn: c, gate: g}
		g.conns[gc] = struct{}{}
		g.mu.Unlock()
		return gc, nil
	}
}

func (c *gateConn) Close() error {
	c.gate.mu.Lock()
	delete(c.gate.conns, c)
	c.gate.mu.Unlock()
	return c.Conn.Close()
}

func (g *gate) set(down bool) {
	g.mu.Lock()
	g.down = down
	var cut []net.Conn
	if down {
		for c := range g.conns {
			cut = append(cut, c.Conn)
		}
		clear(g.conns)
	}
	g.mu.Unlock()
	for _, c := range cut {
		reset(c)
	}
}

// reset closes with RST, the way a vanished host looks.
func reset(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = c.Close()
}
