package main

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// counters count the SOAP calls of a site's clients.
type counters struct {
	mu      sync.Mutex
	methods map[string]int
	objects map[string]map[string]int
}

func (c *counters) add(method, object string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.methods == nil {
		c.methods, c.objects = map[string]int{}, map[string]map[string]int{}
	}
	c.methods[method]++
	if c.objects[object] == nil {
		c.objects[object] = map[string]int{}
	}
	c.objects[object][method]++
}

func (c *counters) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.methods, c.objects = nil, nil
}

// soapTarget reads method and object of a request without decoding it all.
func soapTarget(body []byte) (method string, this types.ManagedObjectReference) {
	dec := xml.NewDecoder(bytes.NewReader(body))
	inBody := false
	for {
		tok, err := dec.Token()
		if err != nil {
			return method, this
		}
		e, ok := tok.(xml.StartElement)
		if !ok {
			continue
		}
		switch {
		case e.Name.Local == "Body":
			inBody = true
		case inBody && method == "":
			method = e.Name.Local
		case method != "" && e.Name.Local == "_this":
			for _, a := range e.Attr {
				if a.Name.Local == "type" {
					this.Type = a.Value[strings.LastIndex(a.Value, ":")+1:]
				}
			}
			if text, err := dec.Token(); err == nil {
				if c, ok := text.(xml.CharData); ok {
					this.Value = string(c)
				}
			}
			return method, this
		}
	}
}

// capture keeps a reply back.
type capture struct {
	header http.Header
	code   int
	body   bytes.Buffer
}

func (c *capture) Header() http.Header         { return c.header }
func (c *capture) WriteHeader(code int)        { c.code = code }
func (c *capture) Write(b []byte) (int, error) { return c.body.Write(b) }

func (c *capture) send(w http.ResponseWriter) {
	for k, v := range c.header {
		w.Header()[k] = v
	}
	w.WriteHeader(c.code)
	_, _ = w.Write(c.body.Bytes())
}

// swapCount counts tasks whose entity is still the dummy that vmTask puts in.
type swapCount struct {
	mu sync.Mutex
	n  int
}

func (c *swapCount) add(d int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n += d
}

func (c *swapCount) wait() {
	for range 1000 {
		c.mu.Lock()
		n := c.n
		c.mu.Unlock()
		if n == 0 {
			return
		}
		time.Sleep(100 * time.Microsecond)
	}
}

// settled answers only when every task names its real entity, so that no
// client ever sees the dummy.
type settled struct {
	http.ResponseWriter
	swaps *swapCount
}

func (w *settled) WriteHeader(code int) {
	w.swaps.wait()
	w.ResponseWriter.WriteHeader(code)
}

// Unwrap lets drop reach the connection.
func (w *settled) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// drop closes the connection without an answer.
func drop(w http.ResponseWriter) {
	if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
		if t, ok := c.(interface{ NetConn() net.Conn }); ok {
			// Closing under TLS, without its farewell, is what a lost
			// connection looks like.
			_ = t.NetConn().Close()
		}
		_ = c.Close()
		return
	}
	panic(http.ErrAbortHandler)
}

func (s *site) middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.plain && strings.HasPrefix(r.URL.Path, "/folder/") && !s.knows(r) {
			// The simulator hands out datastore files to anybody.
			http.Error(w, "log in first", http.StatusUnauthorized)
			return
		}
		if r.Method != http.MethodPost || !strings.HasPrefix(r.URL.Path, "/sdk") {
			next.ServeHTTP(w, r)
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, fmt.Sprintf("read request: %v", err), http.StatusBadRequest)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		w = &settled{ResponseWriter: w, swaps: &s.swaps}
		method, this := soapTarget(body)
		if method == "" {
			next.ServeHTTP(w, r)
			return
		}
		s.counters.add(method, this.Value)
		rule := s.lab.faults.match(s, kindsInHTTP, method, func(o string) bool { return s.concerns(o, this, body) })
		if rule == nil {
			next.ServeHTTP(w, r)
			return
		}
		s.apply(rule, w, r, next)
	})
}

// knows tells whether the request carries the cookie of a session that lives.
func (s *site) knows(r *http.Request) bool {
	cookie, err := r.Cookie(soap.SessionCookieName)
	if err != nil {
		return false
	}
	for _, one := range s.sessions() {
		if one == strings.Trim(cookie.Value, `"`) {
			return true
		}
	}
	return false
}

func (s *site) apply(rule *faultRule, w http.ResponseWriter, r *http.Request, next http.Handler) {
	switch rule.Kind {
	case "delay":
		time.Sleep(time.Duration(rule.Seconds * float64(time.Second)))
		next.ServeHTTP(w, r)
	case "http-503":
		http.Error(w, "503 Service Unavailable (injected by the lab)", http.StatusServiceUnavailable)
	case "drop-before":
		drop(w)
	case "hold-before":
		s.lab.faults.hold(rule, r.Context().Done())
		if r.Context().Err() != nil {
			return // the client gave up before the call was applied
		}
		next.ServeHTTP(w, r)
	case "hold-after", "drop-after":
		c := &capture{header: http.Header{}, code: http.StatusOK}
		next.ServeHTTP(c, r)
		if rule.WaitTask {
			s.awaitReply(c.body.Bytes())
		}
		if rule.Kind == "drop-after" {
			drop(w)
			return
		}
		s.lab.faults.hold(rule, r.Context().Done())
		c.send(w)
	}
}

var taskReply = regexp.MustCompile(`<returnval[^>]*type="Task"[^>]*>([^<]+)</returnval>`)

// awaitReply waits for the task a reply names.
func (s *site) awaitReply(body []byte) {
	m := taskReply.FindSubmatch(body)
	if m == nil {
		return
	}
	ref := types.ManagedObjectReference{Type: "Task", Value: string(m[1])}
	if t, ok := s.ctx.Map.Get(ref).(*simulator.Task); ok {
		t.Wait()
	}
}
