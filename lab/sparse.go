package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"math/rand/v2"
	"os"
	"syscall"
)

const (
	seekData  = 3          // SEEK_DATA of lseek(2)
	seekHole  = 4          // SEEK_HOLE of lseek(2)
	ficlone   = 0x40049409 // FICLONE of ioctl(2)
	blockSize = 64 << 10   // granularity of change tracking
)

type span struct{ off, length int64 }

// dataSpans lists the allocated parts of a file in order. File systems that
// cannot tell report one span over the whole file, which is still correct.
func dataSpans(f *os.File, size int64) ([]span, error) {
	var out []span
	for off := int64(0); off < size; {
		start, err := f.Seek(off, seekData)
		if errors.Is(err, syscall.ENXIO) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("find data in %s: %w", f.Name(), err)
		}
		if start >= size {
			break
		}
		end, err := f.Seek(start, seekHole)
		if err != nil {
			return nil, fmt.Errorf("find holes in %s: %w", f.Name(), err)
		}
		end = min(end, size)
		out = append(out, span{start, end - start})
		off = end
	}
	return out, nil
}

// cloneFile makes dst a complete, sparse copy of src.
func cloneFile(dst, src string) (err error) {
	in, err := os.Open(src)
	if err != nil {
		return fmt.Errorf("open %s for copying: %w", src, err)
	}
	defer in.Close()
	out, err := os.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("create %s: %w", dst, err)
	}
	defer func() {
		if cerr := out.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			_ = os.Remove(dst)
		}
	}()
	if _, _, e := syscall.Syscall(syscall.SYS_IOCTL, out.Fd(), ficlone, in.Fd()); e == 0 {
		return nil
	}
	st, err := in.Stat()
	if err != nil {
		return fmt.Errorf("size of %s: %w", src, err)
	}
	if err = out.Truncate(st.Size()); err != nil {
		return fmt.Errorf("set size of %s: %w", dst, err)
	}
	spans, err := dataSpans(in, st.Size())
	if err != nil {
		return err
	}
	for _, s := range spans {
		if _, err = in.Seek(s.off, io.SeekStart); err != nil {
			return fmt.Errorf("seek in %s: %w", src, err)
		}
		if _, err = out.Seek(s.off, io.SeekStart); err != nil {
			return fmt.Errorf("seek in %s: %w", dst, err)
		}
		if _, err = io.CopyN(out, in, s.length); err != nil {
			return fmt.Errorf("copy %s to %s: %w: is there enough free space?", src, dst, err)
		}
	}
	return nil
}

var zeroBlock [1 << 20]byte

// readSparse hands the whole content to f in pieces of at most piece bytes;
// holes come as slices of a shared zero buffer, without reading them.
func readSparse(name string, piece int64, f func(off int64, data []byte)) error {
	in, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("open disk content: %w", err)
	}
	defer in.Close()
	st, err := in.Stat()
	if err != nil {
		return fmt.Errorf("size of %s: %w", name, err)
	}
	size := st.Size()
	spans, err := dataSpans(in, size)
	if err != nil {
		return err
	}
	buf := make([]byte, piece)
	i := 0
	for off := int64(0); off < size; off += piece {
		n := min(piece, size-off)
		for i < len(spans) && spans[i].off+spans[i].length <= off {
			i++
		}
		if i == len(spans) || spans[i].off >= off+n {
			f(off, zeroBlock[:n])
			continue
		}
		if _, err := in.ReadAt(buf[:n], off); err != nil {
			return fmt.Errorf("read %s at %d: %w", name, off, err)
		}
		f(off, buf[:n])
	}
	return nil
}

// digestFile is the SHA-256 of the whole content, holes read as zeros.
func digestFile(name string) (string, error) {
	h := sha256.New()
	if err := readSparse(name, int64(len(zeroBlock)), func(_ int64, b []byte) { h.Write(b) }); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

var hashSeed = maphash.MakeSeed()

// hashBlocks gives one hash per tracking block.
func hashBlocks(name string) ([]uint64, error) {
	var out []uint64
	err := readSparse(name, blockSize, func(_ int64, b []byte) { out = append(out, maphash.Bytes(hashSeed, b)) })
	return out, err
}

// fillRandom writes the pseudo-random bytes of seed, the same on every run.
func fillRandom(f *os.File, off, length int64, seed uint64) error {
	src := seededSource(seed)
	buf := make([]byte, min(length, 1<<20))
	for length > 0 {
		n := min(length, int64(len(buf)))
		_, _ = src.Read(buf[:n]) // never fails
		if _, err := f.WriteAt(buf[:n], off); err != nil {
			return fmt.Errorf("write %s at %d: %w", f.Name(), off, err)
		}
		off, length = off+n, length-n
	}
	return nil
}

func seededSource(seed uint64) *rand.ChaCha8 {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	return rand.NewChaCha8(key)
}

// punch makes a range of a file a hole again.
func punch(f *os.File, off, length int64) error {
	const keepSize, punchHole = 1, 2
	if err := syscall.Fallocate(int(f.Fd()), keepSize|punchHole, off, length); err == nil {
		return nil
	}
	for length > 0 {
		n := min(length, int64(len(zeroBlock)))
		if _, err := f.WriteAt(zeroBlock[:n], off); err != nil {
			return fmt.Errorf("clear %s at %d: %w", f.Name(), off, err)
		}
		off, length = off+n, length-n
	}
	return nil
}
