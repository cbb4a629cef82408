package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// lab is the whole program: the sites, their faults and the control endpoint.
type lab struct {
	opt        options
	world      *world
	sites      []*site
	byName     map[string]*site
	faults     *faultTable
	records    *recorder
	ca         *authority
	control    *http.Server
	controlURL string
	passFile   string
	started    time.Time
	stop       chan struct{}
}

func startLab(o options) (_ *lab, err error) {
	if err := os.MkdirAll(o.root, 0o700); err != nil {
		return nil, fmt.Errorf("create --root: %w", err)
	}
	if _, err := os.Stat(filepath.Join(o.root, "datastores")); err == nil {
		return nil, fmt.Errorf("%s already holds datastores of an earlier run: remove them or name an empty --root", o.root)
	}
	l := &lab{opt: o, byName: map[string]*site{}, faults: newFaultTable(), records: &recorder{}, started: time.Now(), stop: make(chan struct{})}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	if o.keepImages {
		l.records.keep = filepath.Join(o.root, "images")
	}
	pass, err := l.password()
	if err != nil {
		return nil, err
	}
	if l.ca, err = newAuthority(o.root); err != nil {
		return nil, err
	}
	if l.world, err = loadWorld(o); err != nil {
		return nil, err
	}
	id := randomUUID()
	for i, ws := range l.world.Sites {
		if i > 0 && !o.equalUUIDs {
			id = randomUUID()
		}
		s, err := l.newSite(ws, i, id)
		if err != nil {
			return nil, err
		}
		l.sites = append(l.sites, s)
		l.byName[ws.Name] = s
	}
	if err := l.populate(); err != nil {
		return nil, err
	}
	_ = os.Remove(filepath.Join(o.root, "demo-images")) // its images became disks
	for _, s := range l.sites {
		if err := s.listen(l.ca, url.UserPassword(o.username, pass)); err != nil {
			return nil, err
		}
	}
	if err := l.listenControl(); err != nil {
		return nil, err
	}
	go l.purgeLoop()
	return l, l.writeManifest()
}

// taskRetention is how long vCenter shows finished tasks.
const taskRetention = 10 * time.Minute

func (l *lab) purgeLoop() {
	tick := time.NewTicker(30 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-l.stop:
			return
		case <-tick.C:
			for _, s := range l.sites {
				if !s.plain {
					s.purgeTasks(taskRetention)
				}
			}
		}
	}
}

// password reads the given file, or invents a password.
func (l *lab) password() (string, error) {
	l.passFile = l.opt.passwordFile
	if l.passFile != "" {
		b, err := os.ReadFile(l.passFile)
		if err != nil {
			return "", fmt.Errorf("read --password-file: %w", err)
		}
		p := strings.TrimRight(string(b), "\r\n")
		if p == "" {
			return "", fmt.Errorf("--password-file %s is empty: write the password into it", l.passFile)
		}
		return p, nil
	}
	var b [16]byte
	_, _ = rand.Read(b[:])
	p := hex.EncodeToString(b[:])
	l.passFile = filepath.Join(l.opt.root, "password")
	if err := os.WriteFile(l.passFile, []byte(p+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("write the generated password: %w", err)
	}
	return p, nil
}

func (l *lab) listenControl() error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen for the control endpoint: %w", err)
	}
	l.controlURL = "http://" + ln.Addr().String()
	l.control = &http.Server{Handler: l.controlHandler(), ReadHeaderTimeout: 30 * time.Second, ErrorLog: quietLog(l.opt.verbose)}
	go func() {
		if err := l.control.Serve(ln); err != nil && !errors.Is(err, http.ErrServerClosed) {
			fmt.Fprintf(os.Stderr, "failback-lab: the control endpoint stopped: %v\n", err)
		}
	}()
	return nil
}

// close ends everything; disks stay on the file system.
func (l *lab) close() {
	close(l.stop)
	l.faults.clear()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	for _, s := range l.sites {
		for _, st := range s.states() {
			st.stopGuest()
		}
		if s.server != nil {
			s.gate.set(true)
			_ = s.server.Close()
		}
	}
	if l.control != nil {
		_ = l.control.Shutdown(ctx)
	}
}

func quietLog(verbose bool) *log.Logger {
	if verbose {
		return log.Default()
	}
	return log.New(io.Discard, "", 0)
}

func randomUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	return formatUUID(b[:])
}

// stableUUID is the same on every run, so that stored worlds stay valid.
func stableUUID(s string) string {
	sum := sha256.Sum256([]byte("failback lab " + s))
	return formatUUID(sum[:16])
}

func formatUUID(b []byte) string {
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
