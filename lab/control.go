package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"
)

// httpError is an answer that is no success.
type httpError struct {
	code int
	msg  string
}

func (e *httpError) Error() string { return e.msg }

func failed(code int, format string, a ...any) error {
	return &httpError{code, fmt.Sprintf(format, a...)}
}

type reply = map[string]any

// controlHandler is the side door for tests: it sees and does what no
// vSphere client can.
func (l *lab) controlHandler() http.Handler {
	mux := http.NewServeMux()
	on := func(pattern string, f func(*http.Request) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			res, err := f(r)
			code := http.StatusOK
			if err != nil {
				code = http.StatusInternalServerError
				if he, ok := err.(*httpError); ok {
					code = he.code
				}
				res = reply{"error": err.Error()}
			}
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(code)
			enc := json.NewEncoder(w)
			enc.SetIndent("", " ")
			_ = enc.Encode(res)
		})
	}
	on("GET /health", func(*http.Request) (any, error) {
		return reply{"ok": true, "pid": os.Getpid(), "plain": l.opt.plain, "uptime_seconds": time.Since(l.started).Seconds()}, nil
	})
	on("GET /manifest", func(*http.Request) (any, error) { return l.manifest(), nil })
	on("GET /state", func(*http.Request) (any, error) { return l.state(), nil })
	on("GET /power-events", func(r *http.Request) (any, error) {
		q := r.URL.Query()
		return reply{"events": l.records.find(q.Get("site"), q.Get("vm"))}, nil
	})
	on("GET /calls", func(*http.Request) (any, error) { return l.calls(), nil })
	on("POST /calls/reset", func(*http.Request) (any, error) {
		for _, s := range l.sites {
			s.counters.reset()
			s.clock.reset()
		}
		return reply{"ok": true}, nil
	})
	on("POST /faults", l.addFault)
	on("GET /faults", func(*http.Request) (any, error) { return reply{"faults": l.faults.all()}, nil })
	on("GET /faults/{id}", func(r *http.Request) (any, error) {
		f, ok := l.faults.get(pathID(r))
		if !ok {
			return nil, failed(404, "no fault rule %s", r.PathValue("id"))
		}
		return f, nil
	})
	on("DELETE /faults", func(*http.Request) (any, error) { l.faults.clear(); return reply{"ok": true}, nil })
	on("DELETE /faults/{id}", func(r *http.Request) (any, error) {
		if !l.faults.remove(pathID(r)) {
			return nil, failed(404, "no fault rule %s", r.PathValue("id"))
		}
		return reply{"ok": true}, nil
	})
	on("POST /faults/{id}/release", func(r *http.Request) (any, error) {
		if !l.faults.free(pathID(r)) {
			return nil, failed(404, "no fault rule %s", r.PathValue("id"))
		}
		return reply{"ok": true}, nil
	})
	on("POST /sites/{site}/down", l.onSite(func(s *site, _ *http.Request) (any, error) { s.gate.set(true); return reply{"ok": true}, nil }))
	on("POST /sites/{site}/up", l.onSite(func(s *site, _ *http.Request) (any, error) { s.gate.set(false); return reply{"ok": true}, nil }))
	on("POST /sites/{site}/expire-sessions", l.onSite(func(s *site, _ *http.Request) (any, error) {
		return reply{"ok": true, "sessions": s.expireSessions()}, nil
	}))
	on("POST /sites/{site}/purge-tasks", l.onSite(func(s *site, _ *http.Request) (any, error) {
		return reply{"ok": true, "tasks": s.purgeTasks(0)}, nil
	}))
	on("POST /sites/{site}/deny", l.onSite((*site).serveDeny))
	on("POST /sites/{site}/about", l.onSite((*site).serveAbout))
	on("POST /sites/{site}/host", l.onSite((*site).serveHost))
	on("POST /sites/{site}/restart", l.onSite(func(s *site, _ *http.Request) (any, error) {
		s.gate.set(true)
		defer s.gate.set(false)
		return reply{"ok": true, "tasks": s.purgeTasks(0), "sessions": s.expireSessions()}, nil
	}))
	on("POST /sites/{site}/datastore", l.onSite((*site).serveDatastore))
	on("POST /sites/{site}/page-size", l.onSite(func(s *site, r *http.Request) (any, error) {
		var in struct {
			Extents int64 `json:"extents"`
		}
		if err := readJSON(r, &in); err != nil {
			return nil, err
		}
		if in.Extents < 1 {
			return nil, failed(400, "extents must be at least 1")
		}
		s.pageSize.Store(in.Extents)
		return reply{"ok": true, "extents": in.Extents}, nil
	}))
	l.vmRoutes(on)
	return mux
}

func pathID(r *http.Request) int {
	n, _ := strconv.Atoi(r.PathValue("id"))
	return n
}

func (l *lab) onSite(f func(*site, *http.Request) (any, error)) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		s := l.byName[r.PathValue("site")]
		if s == nil {
			return nil, failed(404, "no site %q", r.PathValue("site"))
		}
		return f(s, r)
	}
}

// readJSON takes an empty body as no settings.
func readJSON(r *http.Request, v any) error {
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil && err != io.EOF {
		return failed(400, "request body: %v", err)
	}
	return nil
}

func (l *lab) addFault(r *http.Request) (any, error) {
	rule := &faultRule{Count: 1}
	if err := readJSON(r, rule); err != nil {
		return nil, err
	}
	if err := l.faults.add(rule, l); err != nil {
		return nil, failed(400, "%v", err)
	}
	got, _ := l.faults.get(rule.ID)
	return got, nil
}

func (l *lab) calls() any {
	sites := reply{}
	wall := 0.0
	for _, s := range l.sites {
		sum, w, n := s.clock.read()
		wall += w
		s.counters.mu.Lock()
		methods, objects, total := map[string]int{}, map[string]map[string]int{}, 0
		for k, v := range s.counters.methods {
			methods[k] = v
			total += v
		}
		for o, m := range s.counters.objects {
			name := o
			objects[name] = map[string]int{}
			for k, v := range m {
				objects[name][k] = v
			}
		}
		s.counters.mu.Unlock()
		sites[s.name] = reply{"total": total, "methods": methods, "objects": objects, "tasks": n, "task_seconds": sum, "task_wall_seconds": w}
	}
	return reply{"sites": sites, "task_wall_seconds": wall}
}
