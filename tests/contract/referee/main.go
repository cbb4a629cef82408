// Referee is govmomi's simulator as an older release shipped it, behind the
// same command line, manifest and fault door as the lab, so that the contract
// tests can run against a vCenter whose behaviour we had no hand in.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/vmware/govmomi/simulator"
)

const username = "referee@failback.local"

type world struct {
	Sites []struct {
		Name string `json:"name"`
		Host bool   `json:"host"` // an ESXi host without a vCenter
		VMs  []vm   `json:"vms"`
	} `json:"sites"`
}

func main() {
	root := flag.String("root", "", "directory for certificate, password and manifest (required)")
	file := flag.String("world", "", "world description: a JSON file with one site (required)")
	flag.Bool("exit-on-stdin-eof", true, "exit when standard input ends; always so")
	flag.Parse()
	log.SetOutput(io.Discard)
	if err := run(*root, *file); err != nil {
		fmt.Fprintln(os.Stderr, "referee:", err)
		os.Exit(1)
	}
}

func run(root, file string) error {
	var w world
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &w); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if len(w.Sites) != 1 {
		return fmt.Errorf("%s describes %d sites; the referee has one", file, len(w.Sites))
	}
	if err := os.MkdirAll(root, 0o700); err != nil {
		return err
	}
	password, err := secret()
	if err != nil {
		return err
	}
	model := simulator.VPX()
	if w.Sites[0].Host {
		model = simulator.ESX()
	}
	defer model.Remove()
	model.Machine, model.Datastore = 0, 2
	if err := model.Create(); err != nil {
		return fmt.Errorf("create the inventory: %w", err)
	}
	service := model.Service
	service.Listen = &url.URL{Host: "127.0.0.1:0", User: url.UserPassword(username, password)}
	inner := service.NewServer()
	defer inner.Close()
	if err := populate(context.Background(), service, w.Sites[0].VMs); err != nil {
		return err
	}
	door := &faults{}
	certificate, pemBytes, err := selfSigned()
	if err != nil {
		return err
	}
	site, err := serve(door.middleware(inner.Config.Handler), &certificate)
	if err != nil {
		return err
	}
	control, err := serve(door, nil)
	if err != nil {
		return err
	}
	ca, secretFile := filepath.Join(root, "ca.pem"), filepath.Join(root, "password")
	manifest, err := json.Marshal(map[string]any{
		"control_url":   "http://" + control,
		"ca_file":       ca,
		"username":      username,
		"password_file": secretFile,
		"plain":         true,
		"sites":         map[string]any{w.Sites[0].Name: map[string]any{"url": "https://" + site + "/sdk"}},
	})
	if err != nil {
		return err
	}
	for path, content := range map[string][]byte{
		ca: pemBytes, secretFile: []byte(password), filepath.Join(root, "manifest.json"): manifest,
	} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return err
		}
	}
	fmt.Printf("failback-lab ready: manifest %s\n", filepath.Join(root, "manifest.json"))
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

func secret() (string, error) {
	raw := make([]byte, 16)
	if _, err := rand.Read(raw); err != nil {
		return "", err
	}
	return hex.EncodeToString(raw), nil
}

// selfSigned makes a certificate that is its own authority.
func selfSigned() (tls.Certificate, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(time.Now().UnixNano()),
		Subject:               pkix.Name{CommonName: "referee"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().AddDate(0, 0, 1),
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	encoded := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, encoded, nil
}

// serve answers on a free port of this machine, under TLS when there is a certificate.
func serve(handler http.Handler, certificate *tls.Certificate) (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	address := listener.Addr().String()
	if certificate != nil {
		listener = tls.NewListener(listener, &tls.Config{
			Certificates: []tls.Certificate{*certificate},
			MinVersion:   tls.VersionTLS12,
			NextProtos:   []string{"http/1.1"},
		})
	}
	go func() {
		if err := http.Serve(listener, handler); err != nil {
			fmt.Fprintln(os.Stderr, "referee:", err)
			os.Exit(1)
		}
	}()
	return address, nil
}
