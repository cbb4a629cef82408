package main

import (
	"bytes"
	"fmt"
	"strings"
)

// randomBytes never compress, like pictures and binaries.
func randomBytes(seed uint64, n int) []byte {
	b := make([]byte, n)
	_, _ = seededSource(seed).Read(b)
	return b
}

// logLines compress well, like every log.
func logLines(seed uint64, n int) []byte {
	src := seededSource(seed)
	var b bytes.Buffer
	for i := range n {
		fmt.Fprintf(&b, "2026-10-%02d %02d:%02d:%02d web01 httpd[812]: GET /orders/%d 200 %d\n",
			1+i%28, i/3600%24, i/60%60, i%60, src.Uint64()%90000, 200+src.Uint64()%4000)
	}
	return b.Bytes()
}

func orders(seed uint64, month string, n int) []byte {
	src := seededSource(seed)
	var b bytes.Buffer
	b.WriteString("order;date;customer;article;amount;total\n")
	for i := range n {
		amount := 1 + src.Uint64()%9
		fmt.Fprintf(&b, "%s-%05d;%s-%02d;C%05d;A%04d;%d;%d.%02d\n", month, i+1, month, 1+i%28,
			src.Uint64()%50000, src.Uint64()%3000, amount, amount*(5+src.Uint64()%90), src.Uint64()%100)
	}
	return b.Bytes()
}

func htmlPage(title, text string) []byte {
	return []byte(fmt.Sprintf("<!doctype html>\n<html lang=\"en\">\n<head><title>%s</title></head>\n<body>\n<h1>%s</h1>\n<p>%s</p>\n%s</body>\n</html>\n",
		title, title, text, strings.Repeat("<p>Orders are taken around the clock.</p>\n", 200)))
}

// lateOrder has no zero byte, so that all its blocks are really written.
func lateOrder() []byte {
	b := bytes.Repeat([]byte(" "), lateSize)
	copy(b, "no late order yet\n")
	b[lateSize-1] = '\n'
	return b
}

// demoFiles gives the files of a disk and what changed on the replica since;
// a nil content is a deletion.
func demoFiles(disk string) (tree, edits contents) {
	if disk == "system" {
		tree = contents{
			"/etc/hostname":            []byte("web01\n"),
			"/etc/hosts":               []byte("127.0.0.1 localhost\n192.0.2.10 web01.example.com web01\n192.0.2.20 db01.example.com db01\n"),
			"/etc/fstab":               []byte("LABEL=system / ext4 defaults 0 1\nLABEL=data /srv ext4 defaults 0 2\n"),
			"/etc/httpd/httpd.conf":    []byte("Listen 443\nServerName web01.example.com\nDocumentRoot /srv/www\n"),
			"/boot/vmlinuz":            randomBytes(101, 7<<20),
			"/boot/initrd.img":         randomBytes(102, 12<<20),
			"/usr/lib/shop/libshop.so": randomBytes(103, 5<<20),
			"/usr/bin/shopd":           randomBytes(104, 3<<20),
			"/var/log/httpd.log":       logLines(105, 60000),
			"/var/log/httpd.log.1":     logLines(106, 60000),
			"/var/cache/stale.bin":     randomBytes(107, 2<<20),
			journalPath:                randomBytes(108, 4<<20),
		}
		edits = contents{
			"/etc/hosts":            []byte("127.0.0.1 localhost\n198.51.100.10 web01.example.com web01\n198.51.100.20 db01.example.com db01\n"),
			"/var/log/httpd.log":    append(logLines(105, 60000), logLines(205, 25000)...),
			"/var/log/failover.log": []byte("2026-11-02 04:12:09 started on the DR site\n2026-11-02 04:12:40 serving\n"),
			"/usr/bin/shopd":        randomBytes(204, 3<<20),
			"/usr/bin/shopd-hotfix": randomBytes(206, 1<<20),
			"/var/cache/stale.bin":  nil,
		}
		return tree, edits
	}
	tree = contents{
		"/srv/www/index.html": htmlPage("Shop", "Welcome."),
		"/srv/www/about.html": htmlPage("About", "A shop of this world."),
		latePath:              lateOrder(),
		journalPath:           randomBytes(308, 4<<20),
	}
	for i := range 10 {
		month := fmt.Sprintf("2026-%02d", i+1)
		tree["/srv/orders/"+month+".csv"] = orders(uint64(310+i), month, 12000)
	}
	for i := range 12 {
		tree[fmt.Sprintf("/srv/www/img/%02d.jpg", i)] = randomBytes(uint64(330+i), 1<<20+i*4099)
	}
	edits = contents{
		"/srv/www/index.html":     htmlPage("Shop", "We serve you from our second site."),
		"/srv/orders/2026-10.csv": orders(319, "2026-10", 15500),
		"/srv/orders/2026-11.csv": orders(420, "2026-11", 9000),
		"/srv/orders/2026-01.csv": nil,
		"/srv/www/img/03.jpg":     randomBytes(433, 2<<20),
		"/srv/www/img/20.jpg":     randomBytes(450, 4<<20),
		"/srv/www/img/07.jpg":     nil,
	}
	return tree, edits
}
