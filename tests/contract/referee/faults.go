package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
)

// rule loses a request or its reply, as often as Count says.
type rule struct {
	Kind   string `json:"kind"`
	Method string `json:"method"`
	Count  int    `json:"count"`
}

// faults is the door through which tests lose requests and replies.
type faults struct {
	mu    sync.Mutex
	rules []*rule
}

func (f *faults) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost || r.URL.Path != "/faults" {
		http.Error(w, "the referee loses requests and replies (POST /faults), nothing else", http.StatusNotFound)
		return
	}
	one := &rule{Count: 1}
	if err := json.NewDecoder(r.Body).Decode(one); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if one.Kind != "drop-before" && one.Kind != "drop-after" {
		http.Error(w, "kind: drop-before or drop-after", http.StatusBadRequest)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules = append(f.rules, one)
	fmt.Fprintf(w, `{"id": %d}`, len(f.rules))
}

// match uses a rule up once.
func (f *faults) match(body []byte) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, one := range f.rules {
		// The element's name ends in a blank, a bracket or a slash; RevertToSnapshot is no Revert.
		for _, end := range []string{" ", ">", "/"} {
			if one.Count > 0 && bytes.Contains(body, []byte("<"+one.Method+end)) {
				one.Count--
				return one.Kind
			}
		}
	}
	return ""
}

func (f *faults) middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		switch f.match(body) {
		case "drop-after":
			next.ServeHTTP(httptest.NewRecorder(), r)
			fallthrough
		case "drop-before":
			panic(http.ErrAbortHandler) // closes the connection without an answer
		default:
			next.ServeHTTP(w, r)
		}
	})
}
