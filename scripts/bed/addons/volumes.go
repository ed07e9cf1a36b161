// SPDX-License-Identifier: GPL-3.0-or-later

package main

import (
	"context"
	"encoding/json"
	"log"
	"os"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// openVolumes lets whatever user a pod runs as write to its volume: kubelet applies fsGroup to no directory of the node.
func openVolumes(factory informers.SharedInformerFactory) error {
	open := func(found any) {
		if source := found.(*core.PersistentVolume).Spec.HostPath; source != nil {
			if err := os.Chmod(source.Path, 0o777); err != nil {
				log.Print(err)
			}
		}
	}
	_, err := factory.Core().V1().PersistentVolumes().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: open})
	return err
}

// growVolumes says that volumes are as large as they were asked to become: a directory of the node has no limit.
func growVolumes(ctx context.Context, client kubernetes.Interface, factory informers.SharedInformerFactory) error {
	grow := func(found any) {
		claim := found.(*core.PersistentVolumeClaim)
		wanted, has := claim.Spec.Resources.Requests[core.ResourceStorage], claim.Status.Capacity[core.ResourceStorage]
		if claim.Status.Phase != core.ClaimBound || wanted.Cmp(has) <= 0 {
			return
		}
		capacity := map[string]any{"capacity": map[string]string{"storage": wanted.String()}}
		volume, _ := json.Marshal(map[string]any{"spec": capacity})
		status, _ := json.Marshal(map[string]any{"status": capacity})
		volumes, claims := client.CoreV1().PersistentVolumes(), client.CoreV1().PersistentVolumeClaims(claim.Namespace)
		_, err := volumes.Patch(ctx, claim.Spec.VolumeName, types.MergePatchType, volume, meta.PatchOptions{})
		if err == nil {
			_, err = claims.Patch(ctx, claim.Name, types.MergePatchType, status, meta.PatchOptions{}, "status")
		}
		if err != nil {
			log.Printf("%s/%s does not grow: %v", claim.Namespace, claim.Name, err)
		}
	}
	_, err := factory.Core().V1().PersistentVolumeClaims().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    grow,
		UpdateFunc: func(_, found any) { grow(found) },
	})
	return err
}
