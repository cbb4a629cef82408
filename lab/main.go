// Command failback-lab simulates two vCenters, production and dr, whose
// virtual disks hold real bytes, so that a failback can be run and proven
// without any VMware installation.
package main

import (
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

type options struct {
	root         string
	world        string
	manifest     string
	username     string
	passwordFile string
	equalUUIDs   bool
	keepImages   bool
	exitOnEOF    bool
	plain        bool
	verbose      bool
	demoPower    string
}

func parseOptions(args []string) (options, error) {
	var o options
	fs := flag.NewFlagSet("failback-lab", flag.ContinueOnError)
	fs.StringVar(&o.root, "root", "", "directory for datastores, images, certificates and the manifest (required)")
	fs.StringVar(&o.world, "world", "tiny", "world description: a JSON file, or the built-in 'demo' or 'tiny'")
	fs.StringVar(&o.manifest, "manifest", "", "where to write the manifest (default ROOT/manifest.json)")
	fs.StringVar(&o.username, "username", "lab@failback.local", "user name both vCenters accept")
	fs.StringVar(&o.passwordFile, "password-file", "", "file with the password (default: generated into ROOT/password)")
	fs.BoolVar(&o.equalUUIDs, "equal-uuids", false, "give both vCenters the same instance uuid and the same morefs")
	fs.BoolVar(&o.keepImages, "keep-images", false, "keep a copy of every disk at each power event")
	fs.BoolVar(&o.exitOnEOF, "exit-on-stdin-eof", false, "exit when standard input ends")
	fs.BoolVar(&o.plain, "plain", false, "stock simulator behaviour, extensions off")
	fs.BoolVar(&o.verbose, "verbose", false, "keep the simulator's own log output on stderr")
	fs.StringVar(&o.demoPower, "demo-production-power", "on", "power state of production/web01 in the demo world: on or off")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	if fs.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q: every setting is a flag, see -help", fs.Arg(0))
	}
	if o.root == "" {
		return o, fmt.Errorf("--root is missing: name a directory the lab may fill")
	}
	if o.demoPower != "on" && o.demoPower != "off" {
		return o, fmt.Errorf("--demo-production-power is %q: use on or off", o.demoPower)
	}
	abs, err := filepath.Abs(o.root)
	if err != nil {
		return o, fmt.Errorf("resolve --root %q: %w", o.root, err)
	}
	o.root = abs
	if o.manifest == "" {
		o.manifest = filepath.Join(o.root, "manifest.json")
	}
	return o, nil
}

func main() {
	o, err := parseOptions(os.Args[1:])
	if err == flag.ErrHelp {
		os.Exit(0)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "failback-lab:", err)
		os.Exit(2)
	}
	if !o.verbose {
		// The simulator logs every refused file and unknown method; tests
		// provoke those on purpose.
		log.SetOutput(io.Discard)
	}
	stop := make(chan string, 4)
	sigs := make(chan os.Signal, 2)
	signal.Notify(sigs, syscall.SIGTERM, syscall.SIGINT)
	go func() { stop <- (<-sigs).String() }()
	if o.exitOnEOF {
		// A parent that dies without a signal still closes our stdin.
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			stop <- "end of standard input"
		}()
	}
	l, err := startLab(o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "failback-lab:", err)
		os.Exit(1)
	}
	fmt.Printf("failback-lab ready: manifest %s control %s\n", o.manifest, l.controlURL)
	why := <-stop
	l.close()
	fmt.Printf("failback-lab stopped: %s\n", why)
}

// complain reports what the lab itself could not do; the simulator's chatter
// goes elsewhere.
func complain(format string, a ...any) {
	fmt.Fprintf(os.Stderr, "failback-lab: "+format+"\n", a...)
}
