package main

import (
	"sync"
	"time"
)

// labClock measures how long tasks ran inside the lab, so that a test can
// subtract the simulated vCenter's own time from what it measured.
type labClock struct {
	mu    sync.Mutex
	sum   time.Duration // added up over tasks
	wall  time.Duration // time in which at least one task ran
	tasks int
	open  int
	since time.Time
}

func (c *labClock) begin() func() {
	start := time.Now()
	c.mu.Lock()
	if c.open == 0 {
		c.since = start
	}
	c.open++
	c.mu.Unlock()
	return func() {
		now := time.Now()
		c.mu.Lock()
		defer c.mu.Unlock()
		c.sum += now.Sub(start)
		c.tasks++
		c.open--
		if c.open == 0 {
			c.wall += now.Sub(c.since)
		}
	}
}

func (c *labClock) read() (sum, wall float64, tasks int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.wall
	if c.open > 0 {
		w += time.Since(c.since)
	}
	return c.sum.Seconds(), w.Seconds(), c.tasks
}

func (c *labClock) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sum, c.wall, c.tasks = 0, 0, 0
	c.since = time.Now()
}
