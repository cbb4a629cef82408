package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

const fsBlock = 4096

// e2tool finds a program of e2fsprogs, also where PATH of a plain user does
// not look.
func e2tool(name string) (string, error) {
	if p, err := exec.LookPath(name); err == nil {
		return p, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/local/sbin"} {
		if p := filepath.Join(dir, name); fileSize(p) > 0 {
			return p, nil
		}
	}
	return "", fmt.Errorf("%s is missing: the demo world builds ext4 images with it; install the package e2fsprogs", name)
}

func runTool(name string, args ...string) (string, error) {
	p, err := e2tool(name)
	if err != nil {
		return "", err
	}
	cmd := exec.Command(p, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}
	if name == "debugfs" {
		// debugfs succeeds even when a command failed; only its second line
		// on stderr tells.
		for _, line := range strings.Split(errs.String(), "\n") {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "debugfs ") {
				return out.String(), fmt.Errorf("debugfs %s: %s", strings.Join(args, " "), line)
			}
		}
	}
	return out.String(), nil
}

// makeFS builds an ext4 image from a folder, without mounting anything.
func makeFS(image, folder, label string, size int64) error {
	f, err := os.Create(image)
	if err != nil {
		return fmt.Errorf("create image: %w", err)
	}
	err = f.Truncate(size)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("size of image %s: %w", image, err)
	}
	_, err = runTool("mke2fs", "-q", "-F", "-t", "ext4", "-b", strconv.Itoa(fsBlock), "-J", "size=4", "-m", "1", "-L", label,
		"-E", "root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0,nodiscard", "-d", folder, image)
	return err
}

// fsEdit is one change of a file inside an image.
type fsEdit struct {
	path   string
	remove bool   // the file exists and goes, or is replaced
	source string // host file with the new content, "" for none
}

// editFS applies changes through debugfs, which keeps all metadata right.
func editFS(image, script string, edits []fsEdit) error {
	var b strings.Builder
	for _, e := range edits {
		if e.remove {
			fmt.Fprintf(&b, "rm %s\n", e.path)
		}
		if e.source != "" {
			// debugfs splits at spaces; inside quotes only a quote is special, and doubled.
			source := `"` + strings.ReplaceAll(e.source, `"`, `""`) + `"`
			fmt.Fprintf(&b, "cd %s\nwrite %s %s\ncd /\n", path.Dir(e.path), source, path.Base(e.path))
		}
	}
	if err := os.WriteFile(script, []byte(b.String()), 0o600); err != nil {
		return fmt.Errorf("debugfs commands: %w", err)
	}
	_, err := runTool("debugfs", "-w", "-f", script, image)
	return err
}

var extentRow = regexp.MustCompile(`^\s*\d+/\s*\d+\s+\d+/\s*\d+\s+(\d+)\s*-\s*(\d+)\s+(\d+)\s*-\s*(\d+)\s+(\d+)\s*(.*)$`)

// fileExtents finds where a file lies on the image. Unwritten extents are
// refused: bytes put there would not be visible to a reader.
func fileExtents(image, name string) ([][2]int64, error) {
	out, err := runTool("debugfs", "-R", "dump_extents -l "+name, image)
	if err != nil {
		return nil, err
	}
	var list [][2]int64
	for _, line := range strings.Split(out, "\n") {
		m := extentRow.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		if strings.Contains(m[6], "Uninit") {
			return nil, fmt.Errorf("%s on %s has unwritten extents", name, image)
		}
		start, _ := strconv.ParseInt(m[3], 10, 64)
		length, _ := strconv.ParseInt(m[5], 10, 64)
		list = append(list, [2]int64{start * fsBlock, length * fsBlock})
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("no extents of %s on %s in the answer of debugfs: %q", name, image, out)
	}
	return list, nil
}
