package main

import (
	"io"
	"log"
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	log.SetOutput(io.Discard) // the simulator logs every refusal the tests provoke
	os.Exit(m.Run())
}

func TestOptions(t *testing.T) {
	if o, err := parseOptions([]string{"--root", "x", "--world", "demo"}); err != nil || o.manifest == "" || o.root[0] != '/' {
		t.Fatalf("%+v %v", o, err)
	}
	for _, bad := range [][]string{{}, {"--root", "x", "extra"}, {"--root", "x", "--demo-production-power", "maybe"}, {"--nonsense"}} {
		if _, err := parseOptions(bad); err == nil {
			t.Errorf("%v: accepted", bad)
		}
	}
}

func TestARootIsUsedOnce(t *testing.T) {
	r := start(t, "tiny")
	o := r.l.opt
	if l, err := startLab(o); err == nil {
		l.close()
		t.Fatal("a root with datastores must be refused")
	}
}
